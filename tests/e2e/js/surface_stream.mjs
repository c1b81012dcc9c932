// What each member of a thread stream (`client.threads.stream(...)`, since 1.15) does over a transport.

import assert from "node:assert/strict";
import { commands, stepped } from "./surface_commands.mjs";
import { DONE, collect, isUuid, say, until } from "./surface_parts.mjs";

const MODULES = ["run", "agent", "input", "state"];
const isEnd = (event) => event.method === "lifecycle" && event.params.data.event === "completed";

// Everything that a thread stream has: its methods, its getters, its state and what is below `run`, `input` and such.
export function namesOfThreadStream(client, sdk, transport) {
  const stream = client.threads.stream({ assistantId: "steps", transport });
  const ofClass = Object.getOwnPropertyNames(sdk.ThreadStream.prototype).filter((name) => name !== "constructor");
  const ofObject = Object.keys(stream).filter((name) => !MODULES.includes(name));
  const below = MODULES.flatMap((module) => Object.keys(stream[module]).map((name) => `${module}.${name}`));
  return [...ofClass, ...ofObject, ...below].map((name) => `${transport}.${name}`);
}

// The client closes a projection that is opened while the run ends before it has read what is replayed: ask before the
// run begins, or when it is over.
const members = {
  async threadId(open, client) {
    const threadId = crypto.randomUUID();
    assert.equal(open("steps", threadId).threadId, threadId);
    const stream = open("steps");
    assert.ok(isUuid(stream.threadId));
    await stream.run.start({ input: { n: 0 } });
    assert.equal((await client.threads.get(stream.threadId)).thread_id, stream.threadId);
  },
  async assistantId(open, client) {
    const { assistant_id } = await client.assistants.create({ graphId: "steps" });
    const stream = open(assistant_id);
    await stream.run.start({ input: { n: 0 } });
    assert.equal(stream.assistantId, assistant_id);
    assert.equal((await client.runs.list(stream.threadId))[0].assistant_id, assistant_id);
  },
  async messages(open) {
    const stream = open("chat");
    const { messages } = stream;
    await stream.run.start({ input: say("tell me more") });
    for await (const message of messages) {
      assert.deepEqual(await collect(message.text), ["You", " said:", " tell", " me", " more"]);
      assert.equal(await message.text, "You said: tell me more");
      assert.equal((await message.usage).total_tokens, 7);
      return;
    }
    assert.fail("no message came");
  },
  async values(open) {
    const stream = open("steps");
    const asked = collect(stream.values);
    await stream.run.start({ input: { n: 0 } });
    const values = await asked;
    assert.deepEqual(values.map((one) => one.log), [[], ["a"], ["a", "b"]]);
    assert.deepEqual(await stream.values, DONE);
  },
  async output(open) {
    const stream = open("steps");
    await stream.run.start({ input: { n: 0 } });
    assert.deepEqual(await stream.output, DONE); // the client keeps it, also over a second run
    const again = open("steps", stream.threadId);
    await again.run.start({ input: { n: 0 } });
    assert.deepEqual((await again.output).log.slice(0, 2), ["a", "b"]);
  },
  async toolCalls(open) {
    const stream = open("agent_all");
    const { toolCalls } = stream;
    await stream.run.start({ input: say("add 2 3") });
    const calls = await collect(toolCalls); // the client gives a call when it begins and again when it ends
    assert.deepEqual([...new Set(calls.map((call) => call.id))], ["call_1"]);
    assert.deepEqual([calls[0].name, calls[0].input, await calls[0].output], ["add", { a: 2, b: 3 }, "5"]);
  },
  async subgraphs(open) {
    const stream = open("nested_all");
    const { subgraphs } = stream;
    await stream.run.start({ input: { ...say("hi"), n: 0 } });
    for await (const child of subgraphs) {
      assert.deepEqual([child.name, child.namespace.length], ["child", 1]);
      await stream.output;
      const [message] = await collect(child.messages, () => true);
      assert.equal(await message.text, "You said: hi");
      const values = await collect(child.values, (one) => one.log?.includes("child"));
      assert.ok(values.at(-1).log.includes("child"));
      return;
    }
    assert.fail("no subgraph came");
  },
  async subagents(open) {
    const stream = open("delegating");
    const { subagents } = stream;
    await stream.run.start({ input: say("go") });
    const [agent, ...more] = await collect(subagents);
    assert.deepEqual([agent.name, agent.callId, more], ["researcher", "call_task", []]);
    assert.deepEqual([await agent.taskInput, (await agent.output).content], ["look it up", "found"]);
  },
  ...Object.fromEntries(["audio", "images", "video", "files"].map((kind) => [kind, (open) => media(open, kind)])),
  async extensions(open) {
    const stream = open("steps_all");
    const { shout } = stream.extensions;
    await stream.run.start({ input: { n: 0 } });
    assert.deepEqual(await collect(shout), ["{'HELLO': 'FROM A'}"]);
    assert.equal(await shout, "{'HELLO': 'FROM A'}");
  },
  async onEvent(open) {
    const stream = open("steps");
    const events = [];
    const stop = stream.onEvent((event) => events.push(event));
    await stream.run.start({ input: { n: 0 } });
    await until(() => events.some(isEnd), "the end of the run is heard of");
    assert.equal(new Set(events.map((event) => event.event_id)).size, events.length);
    stop();
    const before = events.length;
    await stream.run.start({ input: { n: 0 } });
    await stream.output;
    assert.equal(events.length, before);
  },
  async onError(open) {
    const cut = new AbortController();
    let socket;
    const stream = open("steps", crypto.randomUUID(), {
      fetch: (url, init) => fetch(url, { ...init, signal: cut.signal }),
      webSocketFactory: (url) => (socket = new WebSocket(url)),
    });
    const errors = [];
    stream.onError((error) => errors.push(error));
    await stream.subscribe("values");
    assert.deepEqual(errors, []);
    cut.abort(new Error("the line is cut"));
    socket?.close();
    await until(() => errors.length, "the lost connection is heard of");
    assert.ok(errors[0] instanceof Error);
  },
  async startLifecycleWatcher(open, client) {
    const stream = await stepped(open);
    const late = open("steps", stream.threadId);
    const heard = [];
    late.onEvent((event) => heard.push(event));
    late.startLifecycleWatcher();
    await until(() => heard.some(isEnd), "the run that was is heard of");
    await client.runs.wait(stream.threadId, "steps", { input: { n: 0 } });
    await until(() => heard.filter(isEnd).length === 2, "a run that another client starts is heard of");
  },
  async subscribe(open) {
    const stream = open("steps");
    const events = await stream.subscribe(["lifecycle", "values"]);
    await stream.run.start({ input: { n: 0 } });
    const found = await collect(events, isEnd);
    assert.deepEqual(found.filter((event) => event.method === "values").at(-1).params.data, DONE);
    assert.deepEqual(found.map((event) => event.seq), [...found.map((event) => event.seq)].sort((a, b) => a - b));
    await events.unsubscribe();
    assert.deepEqual(await collect(events), []);
  },
  async ordering(open) {
    const stream = await stepped(open);
    assert.ok(stream.ordering.lastSeenSeq >= 5, JSON.stringify(stream.ordering));
    assert.equal(typeof stream.ordering.lastEventId, "string");
  },
  async close(open) {
    const stream = open("slow");
    await stream.run.start({ input: { n: 400, delay: 0.05 } });
    const values = collect(stream.values);
    await stream.close();
    assert.ok((await values).length < 400);
    await assert.rejects(stream.run.start({ input: {} }));
    const again = open("slow", stream.threadId); // the run goes on without its readers, until somebody stops it
    await again.run.start({ input: { n: 0 }, multitaskStrategy: "rollback" });
  },
  ...commands,
};

async function media(open, kind) {
  const stream = open("media");
  const asked = stream[kind];
  await stream.run.start({ input: say("show me") });
  const [one, ...more] = await collect(asked);
  assert.equal(await (await one.blob).text(), `bytes of ${kind}`);
  assert.deepEqual(more, []);
}

// The checks by the names of the members over one transport; what they open is closed.
export function streams(transport) {
  const check = (member) => async (client) => {
    const opened = [];
    const open = (assistantId, threadId, more = {}) => {
      const options = { assistantId, transport, maxReconnectAttempts: 0, ...more };
      opened.push(threadId ? client.threads.stream(threadId, options) : client.threads.stream(options));
      return opened.at(-1);
    };
    try {
      await member(open, client);
    } finally {
      await Promise.all(opened.map((stream) => stream.close()));
    }
  };
  return Object.fromEntries(Object.entries(members).map(([name, member]) => [`${transport}.${name}`, check(member)]));
}
