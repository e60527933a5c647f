// Call a task and read its result over HTTP, with nothing but Java's own library (which has no JSON: a pattern does for this):
//
//     java Http.java http://127.0.0.1:8280

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class Http {
    static String member(String json, String name) {
        Matcher found = Pattern.compile("\"" + name + "\": (\"[^\"]*\"|[^,}]*)").matcher(json);
        return found.find() ? found.group(1).replace("\"", "") : null;
    }

    public static void main(String[] args) throws Exception {
        String base = args[0].replaceAll("/$", "");
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpRequest call = HttpRequest.newBuilder(URI.create(base + "/tasks"))
                .POST(HttpRequest.BodyPublishers.ofString("{\"task\": \"tasks.add\", \"args\": [2, 3]}")).build();
        String id = member(client.send(call, BodyHandlers.ofString()).body(), "id");
        String task;
        do {
            HttpRequest wait = HttpRequest.newBuilder(URI.create(base + "/tasks/" + id + "?wait=20")).build();
            task = client.send(wait, BodyHandlers.ofString()).body();
        } while (!"true".equals(member(task, "ready")));
        System.out.println("SUCCESS".equals(member(task, "state")) ? member(task, "result") : member(task, "message"));
    }
}
