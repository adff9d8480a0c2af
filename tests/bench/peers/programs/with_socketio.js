// Broadcast with socket.io: `io.emit` reaches everybody.
//
// source: socket.io/docs/v4/broadcasting-events

const { createServer } = require("node:http");
const { BACKLOG, HOST, installed, port, run } = require("./turns.js");

const { Server } = installed("socket.io");

// Its clients are asked for a sign of life this seldom: not within any measurement.
const MS_BETWEEN_PINGS = 3_600_000;

const http = createServer();
const io = new Server(http, { perMessageDeflate: false, pingInterval: MS_BETWEEN_PINGS });

http.listen({ host: HOST, port, backlog: BACKLOG }, () => run("socket.io", (text) => io.emit("message", text)));
