// Broadcast with ws: `send` for each client, as its README says under "Server broadcast".
//
// usage: node with_ws.js WAY PORT      WAY is what is sent: a `string`; one `buffer` for all, as in the README; or one `frame`
// for all, built by `Sender.frame`, which its author made public for just this, and written to the sockets beside the library
// source: github.com/websockets/ws, README.md and pull request 1016

const { BACKLOG, HOST, installed, port, run } = require("./turns.js");

const { Sender, WebSocket, WebSocketServer } = installed("ws");

const server = new WebSocketServer({ host: HOST, port, path: "/ws", backlog: BACKLOG, perMessageDeflate: false });
const TEXT = 1;

function each(send) {
  server.clients.forEach((client) => {
    if (client.readyState === WebSocket.OPEN) send(client);
  });
}

const WAYS = {
  string: (text) => each((client) => client.send(text)),
  buffer: (text) => {
    const buffer = Buffer.from(text);
    each((client) => client.send(buffer, { binary: false }));
  },
  frame: (text) => {
    const pieces = Sender.frame(Buffer.from(text), { fin: true, opcode: TEXT, mask: false, readOnly: true, rsv1: false });
    const frame = Buffer.concat(pieces);
    each((client) => client._socket.write(frame));
  },
};

server.on("listening", () => run("ws", WAYS[process.argv[2]]));
