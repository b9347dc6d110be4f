// The same program as ../go, on the stock NATS library for Node: what it knows of
// Tidemark is the three variables and the subjects.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, nkeyAuthenticator } from "@nats-io/transport-node";

const { TIDEMARK_URL, TIDEMARK_IDENTITY, TIDEMARK_CREDS } = process.env;
const P = TIDEMARK_IDENTITY.slice(1).replaceAll("/", "."); // devices.<device>.modules.<module>

const nc = await connect({
  servers: TIDEMARK_URL,
  // Read anew for each connect, so that a rotated seed is taken.
  authenticator: nkeyAuthenticator(() => Buffer.from(readFileSync(TIDEMARK_CREDS, "utf8").trim())),
  inboxPrefix: `_INBOX.${P}`, // a module may listen below its own only
  waitOnFirstConnect: true,
  maxReconnectAttempts: -1,
  reconnectTimeWait: 250,
  ignoreAuthErrorAbort: true,
});
process.on("SIGTERM", () => nc.close());

let speed = 0;
let follows = 0;

// Asks until there is an answer: while the agent is away there is none. A message
// whose answer was lost is stored twice by that, which is this module's choice.
async function ask(subject, body) {
  for (;;) {
    let answer;
    try {
      answer = (await nc.request(`${P}.${subject}`, JSON.stringify(body), { timeout: 5000 })).json();
    } catch (err) {
      if (nc.isClosed()) throw err;
    }
    if (answer !== undefined && answer.error?.code !== 429) {
      if (answer.error) throw new Error(`${subject}: ${answer.error.message} (${answer.error.code})`);
      return answer;
    }
    await sleep(250);
  }
}

async function follow() {
  const { desired } = (await ask("twin.get")).properties;
  if (desired.$version <= follows) return;
  follows = desired.$version;
  speed = desired.speed ?? 0;
  await ask("twin.reported", { speed, follows });
  await ask("out.changes", { speed }); // answered when it is on the device's disk
  await ask("twin.reported", { sent: follows });
}

async function obey(m) {
  const by = m.headers?.get("Tidemark-From") ?? "";
  let command;
  try {
    command = m.json();
  } catch (err) {
    console.error(`command from ${by}: ${err.message}`);
    return; // it is no better when it comes again
  }
  await ask("twin.reported", { speed: command.speed, by });
  speed = command.speed;
}

// Calls f with each value, one at a time, for as long as they come.
async function each(values, f) {
  for await (const v of values) {
    try {
      await f(v);
    } catch (err) {
      if (!nc.isClosed()) console.error(err.message);
    }
  }
}

const refusal = (code, message) => JSON.stringify({ error: { code, message } });

// What Git desires: subscribe, then get; and get again after a time without.
each(nc.subscribe(`${P}.twin.desired`), follow);
each(nc.status(), (s) => (s.type === "reconnect" ? follow() : undefined));
each([undefined], follow);

// What routes lead to the input "commands": an empty answer takes it, an error
// makes it come again.
each(nc.subscribe(`${P}.in.commands`, { queue: "instances" }), async (m) => {
  try {
    await obey(m);
    m.respond();
  } catch (err) {
    m.respond(refusal(500, err.message));
  }
});

// What the cloud asks, or another module that may.
each(nc.subscribe(`${P}.rpc.speed`, { queue: "instances" }), (m) => {
  m.respond(m.data.length > 0 ? refusal(400, "speed takes no arguments") : JSON.stringify({ speed }));
});
