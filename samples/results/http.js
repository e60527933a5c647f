// Call a task and read its result over HTTP, with nothing but Node's own library:
//
//     node http.js http://127.0.0.1:8280
const http = require("http");

const base = process.argv[2].replace(/\/$/, "");

function ask(method, path, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(base + path, { method }, (reply) => {
      let text = "";
      reply.on("data", (chunk) => (text += chunk));
      reply.on("end", () => resolve(JSON.parse(text)));
    });
    request.on("error", reject);
    request.end(body ? JSON.stringify(body) : undefined);
  });
}

(async () => {
  const { id } = await ask("POST", "/tasks", { task: "tasks.add", args: [2, 3] });
  let result;
  do {
    result = await ask("GET", `/tasks/${id}?wait=20`);
  } while (!result.ready);
  console.log(result.state === "SUCCESS" ? result.result : result.error.message);
  process.exit(0);
})();
