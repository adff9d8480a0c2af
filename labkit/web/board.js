// The live board: one WebSocket, which comes back with its position when it is cut.
//
// Addresses are relative to the page's own, so that it also works under a path of a proxy. What fans and posters write
// goes into the page as text and never as markup.

const LONGEST_WAIT_SECONDS = 10;
const SHORTEST_WAIT_SECONDS = 0.2;
const SHOWN_NEWS = 200;
const SHOWN_CHARACTERS = 2000;
// A reader's voice should get the last of many, not each of them.
const QUIET_BEFORE_ANNOUNCING_MS = 400;
// Before everything: the answer is all news that the server still has.
const BEFORE_EVERYTHING = { epoch: 0, seq: 0 };

const element = (id) => document.getElementById(id);

let position = null;
let wasHere = false;
let failures = 0;
let socket = null;
let comingBack = null;
let announcing = null;

// ---- the connection

function address() {
  const url = new URL("ws", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = new URLSearchParams(position ?? BEFORE_EVERYTHING);
  return url;
}

function connect() {
  clearTimeout(comingBack);
  comingBack = null;
  show("away", wasHere ? "Connecting again …" : "Connecting …");
  socket = new WebSocket(address());
  socket.onmessage = ({ data }) => hear(JSON.parse(data));
  socket.onclose = ({ code, reason }) => {
    if (code === 1008) {
      // The server cannot make sense of where we stand; so we begin anew, and what we missed stays unknown.
      position = null;
      showGap(reason);
    }
    comeBack();
  };
}

function comeBack() {
  // Chance spreads the fans of a server that went away over time, so that they do not all arrive at once.
  const longest = Math.min(LONGEST_WAIT_SECONDS, 0.5 * 2 ** failures);
  const wait = SHORTEST_WAIT_SECONDS + Math.random() * longest;
  failures += 1;
  const when = wait < 1.5 ? "in a moment" : `in ${Math.round(wait)} seconds`;
  show("away", `Not connected. Trying again ${when}.`);
  comingBack = setTimeout(connect, wait * 1000);
}

// Whoever has just got a network back need not wait any longer.
addEventListener("online", () => {
  if (comingBack !== null) connect();
});

function show(state, words) {
  element("state").dataset.state = state;
  element("state").textContent = words;
}

// ---- what the server says

function hear(said) {
  if ("server" in said) start(said);
  else if ("gap" in said) {
    showGap(said.reason);
    if (said.gap.until) stand(said.gap.until[0], said.gap.until[1]);
  } else if (isNew(said)) {
    stand(said.epoch, said.seq);
    showNews(said.data, `${said.epoch}-${said.seq}`);
  }
}

function start({ position: place, recovered, server }) {
  // A page that has just been opened misses nothing that it ever had.
  if (wasHere && !recovered) showGap("the server could not tell all that came while you were away");
  if (place) stand(place[0], place[1]);
  wasHere = true;
  failures = 0;
  show("live", "Live");
  element("server").textContent = `Connected to ${server}`;
}

function isNew({ epoch, seq }) {
  return position === null || epoch !== position.epoch || seq > position.seq;
}

function stand(epoch, seq) {
  position = { epoch, seq };
  element("position").textContent = seq === 0 ? "before the first message" : `message ${seq} of epoch ${epoch}`;
}

// ---- what the page shows

function showNews(data, id) {
  const news = read(data);
  if (news.result) {
    element("home").textContent = data.home;
    element("away").textContent = data.away;
    element("latest").textContent = news.text || "Goal!";
  }
  const item = document.createElement("li");
  item.dataset.id = id;
  item.append(part("span", `mark${news.result ? " result" : ""}`, news.mark), part("span", news.kind, news.text));
  put(item);
  announce(`${news.result} ${news.text}`.trim());
}

// A goal is {home, away, scorer, minute}, a piece of news {text, minute}; of both, all but the first may be missing.
function read(data) {
  const isObject = data !== null && typeof data === "object";
  const minute = isObject && Number.isFinite(data.minute) ? `${data.minute}′` : "";
  if (isObject && Number.isInteger(data.home) && Number.isInteger(data.away)) {
    const words = [minute, data.scorer, data.text].filter((word) => typeof word === "string" && word !== "");
    const result = `${data.home}:${data.away}`;
    return { result, mark: result, kind: "words", text: shorten(words.join(" ")) };
  }
  if (isObject && typeof data.text === "string") {
    return { result: "", mark: minute, kind: "words", text: shorten(data.text) };
  }
  return { result: "", mark: "", kind: "raw", text: shorten(JSON.stringify(data)) };
}

function showGap(reason) {
  const words = `Some news may be missing here: ${reason}.`;
  const newest = element("news").firstElementChild;
  // A cut and its end are one gap to a reader.
  if (newest?.classList.contains("gap")) newest.textContent = words;
  else put(part("li", "gap", words));
  announce(words);
}

function put(item) {
  item.classList.add("new");
  element("news").prepend(item);
  element("nothing").hidden = true;
  while (element("news").childElementCount > SHOWN_NEWS) element("news").lastElementChild.remove();
}

function part(tag, kind, text) {
  const made = document.createElement(tag);
  made.className = kind;
  made.textContent = text;
  return made;
}

function shorten(text) {
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)} …` : text;
}

function announce(text) {
  clearTimeout(announcing);
  announcing = setTimeout(() => {
    element("announcement").textContent = text;
  }, QUIET_BEFORE_ANNOUNCING_MS);
}

// ---- posting

// The key of what was sent and not confirmed: sent again, it appears once.
let unconfirmed = { body: "", key: "" };

function written() {
  const text = element("post-text").value.trim();
  const minute = element("post-minute").value === "" ? {} : { minute: Number(element("post-minute").value) };
  if (text) return { text, ...minute };
  const scorer = element("post-scorer").value.trim();
  const result = { home: Number(element("post-home").value), away: Number(element("post-away").value) };
  return { ...result, ...(scorer ? { scorer } : {}), ...minute };
}

// crypto.randomUUID() is there for pages over https and on localhost only.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function post() {
  const body = JSON.stringify(written());
  if (body !== unconfirmed.body) unconfirmed = { body, key: newKey() };
  const response = await fetch(new URL("goal", document.baseURI), {
    method: "POST",
    headers: {
      Authorization: `Bearer ${element("token").value}`,
      "Content-Type": "application/json",
      "Idempotency-Key": unconfirmed.key,
    },
    body,
  });
  const answer = await response.json();
  if (!response.ok) return typeof answer.detail === "string" ? answer.detail : `Refused: ${response.status}.`;
  unconfirmed = { body: "", key: "" };
  return `Posted as message ${answer.seq}.`;
}

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  element("answer").textContent = "Posting …";
  try {
    element("answer").textContent = await post();
  } catch {
    element("answer").textContent = "No answer. It may have got through; Post again, and it will appear once.";
  }
});

connect();
