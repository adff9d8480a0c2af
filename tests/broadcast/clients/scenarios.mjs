// The browser's WebSocket through every scenario: the same text in Node and in Chromium.

const CHARACTERS = ["a", "ü", "€", "🎉"];
const COUNTS = [1, 0, 10, 10, 125, 10, 10, 250_000, 126, 10, 10, 1, 65_535, 10, 10, 10, 65_536, 10, 10, 10];
const MANY = "The same words again and again. ".repeat(20);

const textOf = (number) => CHARACTERS[number % 4].repeat(COUNTS[number]);
const isBinary = (number) => number % 5 === 4;
const bytesOf = (text) => new TextEncoder().encode(text);

/** Return the beginning of a message's SHA-256, behind "t " for text and "b " for bytes. */
async function digest(message) {
  const isText = typeof message === "string";
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", isText ? bytesOf(message) : message));
  const hex = [...hash.slice(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${isText ? "t" : "b"} ${hex}`;
}

/** One connection, which keeps what it hears until somebody takes it. */
class Connection {
  constructor(address, protocols = []) {
    this.messages = [];
    this.takers = [];
    this.socket = new WebSocket(address, protocols);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => {
      const taker = this.takers.shift();
      if (taker) taker.resolve(data);
      else this.messages.push(data);
    };
    this.ended = new Promise((resolve) => {
      this.socket.onclose = ({ code, reason }) => {
        for (const taker of this.takers) taker.reject(new Error(`closed with ${code} while a message was awaited`));
        resolve({ code, reason });
      };
    });
    this.opened = new Promise((resolve) => (this.socket.onopen = resolve));
  }

  /** Return the next message; throw when the connection is closed before it comes. */
  take() {
    if (this.messages.length) return Promise.resolve(this.messages.shift());
    return new Promise((resolve, reject) => this.takers.push({ resolve, reject }));
  }

  /** Say goodbye, and return what the other side made of it. */
  goodbye(code, reason) {
    this.socket.close(code, reason);
    return this.ended;
  }
}

/** Say the same before and after all others have had their turn; compressed, it points back to the first time. */
async function beIdle(connection) {
  const { socket } = connection;
  const echoes = [];
  socket.send(MANY);
  echoes.push((await connection.take()) === MANY);
  const called = await connection.take();
  socket.send(MANY);
  echoes.push((await connection.take()) === MANY);
  socket.send(bytesOf(MANY));
  echoes.push(new TextDecoder().decode(await connection.take()) === MANY);
  const deflate = socket.extensions.startsWith("permessage-deflate");
  return { called, echoes, deflate, ...(await connection.goodbye(1000)) };
}

const SCENARIOS = {
  async bodies(connection) {
    connection.socket.send("ready");
    const messages = [];
    for (let message; (message = await connection.take()) !== "end"; ) messages.push(message);
    return { heard: await Promise.all(messages.map(digest)), ...(await connection.goodbye(1000)) };
  },

  async chat(connection) {
    const { socket } = connection;
    const heard = [];
    const echoes = [];
    socket.send("ready");
    let message = await connection.take();
    for (; message !== "begin"; message = await connection.take()) heard.push(message);
    for (let number = 0; number < COUNTS.length; number++) {
      const text = textOf(number);
      socket.send(isBinary(number) ? bytesOf(text) : text);
    }
    const isBroadcast = (said) => typeof said === "string" && said.startsWith("{");
    const isTheEnd = (said) => isBroadcast(said) && said.includes("the end");
    while (!isTheEnd((message = await connection.take()))) (isBroadcast(message) ? heard : echoes).push(message);
    return { heard, echoes: await Promise.all(echoes.map(digest)), ...(await connection.goodbye(1000)) };
  },

  async idle_pings(connection) {
    const said = await connection.take();
    connection.socket.send("thanks");
    return { said, ...(await connection.goodbye(1000)) };
  },

  async busy_pings(connection) {
    const ticks = [];
    for (let message; (message = await connection.take()) !== "enough"; ) ticks.push(message);
    const inOrder = ticks.every((tick, index) => tick === `tick ${index + 1}`);
    connection.socket.send("thanks");
    return { ticked: ticks.length > 0, inOrder, ...(await connection.goodbye(1000)) };
  },

  client_closes: (connection) => connection.goodbye(4002, "bye – ü"),

  client_closes_without_a_word: (connection) => connection.goodbye(),

  async server_closes(connection) {
    connection.socket.send("close me");
    return connection.ended;
  },

  async server_closes_normally(connection) {
    connection.socket.send("close me");
    return connection.ended;
  },

  async endpoint_raises(connection) {
    connection.socket.send("raise");
    return connection.ended;
  },

  async too_big(connection) {
    connection.socket.send("x".repeat(1_000));
    const echo = await connection.take();
    connection.socket.send("x".repeat(1_001));
    return { echoed: echo.length, ...(await connection.ended) };
  },

  async subprotocol(connection) {
    connection.socket.send("hello");
    const said = await connection.take();
    return { said, chosen: connection.socket.protocol, ...(await connection.goodbye(1000)) };
  },

  idle: beIdle,

  plain_idle: beIdle,

  async drain(connection) {
    connection.socket.send("ready");
    return connection.ended;
  },

  async shutdown(connection) {
    connection.socket.send("ready");
    return connection.ended;
  },

  lonely_shutdown: (connection) => connection.ended,
};

// Which of the three servers, where it is not the first: on the others nothing is compressed, and a message may have
// 1,000 bytes; on the third there are no pings.
const SERVERS = { too_big: 2, plain_idle: 1, shutdown: 2, lonely_shutdown: 2 };

/**
 * Go through all scenarios at once; call report() with what became of each, as soon as it is known.
 * addresses: the three servers, such as "ws://127.0.0.1:1234". client: the name to go by.
 */
export async function play(addresses, client, report) {
  const run = async ([scenario, act]) => {
    const address = addresses[SERVERS[scenario] ?? 0];
    const protocols = scenario === "subprotocol" ? ["chat.v2", "chat.v1"] : [];
    const connection = new Connection(`${address}/ws/${scenario}/${client}`, protocols);
    try {
      await Promise.race([connection.opened, connection.ended]);
      report({ client, scenario, ...(await act(connection)) });
    } catch (error) {
      report({ client, scenario, error: String(error) });
    }
  };
  await Promise.all(Object.entries(SCENARIOS).map(run));
}
