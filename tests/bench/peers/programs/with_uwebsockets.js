// Broadcast with uWebSockets.js: everybody subscribes to a topic, and the app publishes to it. What is published within one
// turn of the loop leaves together.
//
// usage: node with_uwebsockets.js PACKAGE FOLDER PORT      FOLDER is where the package keeps its binaries: `.` or `binaries`
// The binary is loaded as it is: one of the packages would go on in JavaScript where it has none for this Node.
// source: github.com/uNetworking/uWebSockets.js, examples/PubSub.js; the documentation of `publish` in its index.d.ts

const { HOST, ENVIRONMENT, port, run } = require("./turns.js");
const { join } = require("node:path");

const [PACKAGE, FOLDER] = process.argv.slice(2);
const BINARY = `uws_${process.platform}_${process.arch}_${process.versions.modules}.node`;
const uWS = require(join(ENVIRONMENT, "node_modules", PACKAGE, FOLDER, BINARY));
const TOPIC = "broadcast";

const app = uWS.App().ws("/ws", {
  compression: uWS.DISABLED,
  idleTimeout: 0,
  sendPingsAutomatically: false,
  // Its own bound of 64 KiB would drop in silence what the other peers keep.
  maxBackpressure: 1024 * 1024,
  open: (socket) => socket.subscribe(TOPIC),
});

app.listen(HOST, port, (listening) => {
  if (!listening) throw new Error(`port ${port} is taken`);
  run(PACKAGE, (text) => app.publish(TOPIC, text, false));
});
