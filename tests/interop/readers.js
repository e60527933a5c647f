// Read a task's result document from Redis with nothing but Node: node readers.js PORT DB TASK_ID
'use strict';
const net = require('net');
const [port, db, id] = process.argv.slice(2);
const key = `celery-task-meta-${id}`;
const sock = net.connect(Number(port), '127.0.0.1', () => sock.write(
    `*2\r\n$6\r\nSELECT\r\n$${db.length}\r\n${db}\r\n*2\r\n$3\r\nGET\r\n$${Buffer.byteLength(key)}\r\n${key}\r\n`));
let got = Buffer.alloc(0);
sock.on('data', (part) => {
    got = Buffer.concat([got, part]);
    const head = /^\+OK\r\n\$(\d+)\r\n/.exec(got.toString('latin1'));
    if (!head || got.length < head[0].length + Number(head[1]) + 2)
        return;
    const text = got.subarray(head[0].length, head[0].length + Number(head[1])).toString('utf8');
    const doc = JSON.parse(text);
    console.log(JSON.stringify({ status: doc.status, result: doc.result, task_id: doc.task_id }));
    sock.destroy();
});
sock.setTimeout(5000, () => { console.error('no answer'); process.exit(1); });
