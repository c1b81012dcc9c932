// What each member of a thread stream (`client.threads.stream(...)`, since 1.15) does over a transport.

import assert from "node:assert/strict";
import { collect, isUuid, until } from "./surface_parts.mjs";

const MODULES = ["run", "agent", "input", "state"];
const DONE = { log: ["a", "b"], n: 2 };
const ASKED = { question: "go on?" };
const say = (content) => ({ messages: [{ role: "user", content }] });
const isEnd = (event) => event.method === "lifecycle" && event.params.data.event === "completed";

// Everything that a thread stream has: its methods, its getters, its state and what is below `run`, `input` and such.
export function namesOfThreadStream(client, sdk, transport) {
  const stream = client.threads.stream({ assistantId: "steps", transport });
  const ofClass = Object.getOwnPropertyNames(sdk.ThreadStream.prototype).filter((name) => name !== "constructor");
  const ofObject = Object.keys(stream).filter((name) => !MODULES.includes(name));
  const below = MODULES.flatMap((module) => Object.keys(stream[module]).map((name) => `${module}.${name}`));
  return [...ofClass, ...ofObject, ...below].map((name) => `${transport}.${name}`);
}

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
  async "run.start"(open, client) {
    const stream = open("steps");
    const { run_id } = await stream.run.start({ input: { n: 0 }, metadata: { by: "js" } });
    assert.equal((await client.runs.get(stream.threadId, run_id)).metadata.by, "js");
    await assert.rejects(open("nobody").run.start({ input: {} }), /nobody/);
  },
  async messages(open) {
    const stream = open("chat");
    await stream.run.start({ input: say("tell me more") });
    for await (const message of stream.messages) {
      assert.deepEqual(await collect(message.text), ["You", " said:", " tell", " me", " more"]);
      assert.equal(await message.text, "You said: tell me more");
      assert.equal((await message.usage).total_tokens, 7);
      return;
    }
    assert.fail("no message came");
  },
  async values(open) {
    const stream = open("steps");
    await stream.run.start({ input: { n: 0 } });
    const values = await collect(stream.values);
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
    await stream.run.start({ input: say("add 2 3") });
    const calls = await collect(stream.toolCalls); // the client gives a call when it begins and again when it ends
    assert.deepEqual([...new Set(calls.map((call) => call.id))], ["call_1"]);
    assert.deepEqual([calls[0].name, calls[0].input, await calls[0].output], ["add", { a: 2, b: 3 }, "5"]);
  },
  async subgraphs(open) {
    const stream = open("nested_all");
    await stream.run.start({ input: { ...say("hi"), n: 0 } });
    for await (const child of stream.subgraphs) {
      assert.deepEqual([child.name, child.namespace.length], ["child", 1]);
      const [message] = await collect(child.messages, () => true);
      assert.equal(await message.text, "You said: hi");
      // What came before somebody asked may come after what follows it: the client puts them in no order.
      const values = await collect(child.values);
      assert.ok(values.some((one) => one.log?.includes("child")));
      return;
    }
    assert.fail("no subgraph came");
  },
  async subagents(open) {
    const stream = open("delegating");
    await stream.run.start({ input: say("go") });
    const [agent, ...more] = await collect(stream.subagents);
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
  async interrupted(open) {
    const stream = await asking(open);
    assert.equal(stream.interrupted, true);
    await stream.input.respond({ namespace: [], interrupt_id: stream.interrupts[0].interruptId, response: "yes" });
    await stream.output;
    assert.equal(stream.interrupted, false);
  },
  async interrupts(open) {
    const [asked, ...more] = (await asking(open)).interrupts;
    assert.deepEqual([asked.payload, asked.namespace, more], [ASKED, [], []]);
  },
  async "input.respond"(open, client) {
    const stream = await asking(open);
    await stream.input.respond({ namespace: [], interrupt_id: stream.interrupts[0].interruptId, response: "yes" });
    await answered(client, stream, "yes");
  },
  async respondInput(open, client) {
    const stream = await asking(open);
    const { interruptId: interrupt_id, namespace } = stream.interrupts[0];
    await stream.respondInput({ interrupt_id, namespace, response: "no" });
    await answered(client, stream, "no");
  },
  // No graph takes a message into a run that executes, so servers refuse it.
  async "input.inject"(open) {
    const stream = open("steps");
    await stream.run.start({ input: { n: 0 } });
    const message = { role: "user", content: "and?" };
    await assert.rejects(stream.input.inject({ namespace: [], message }), /unknown_command|Unknown protocol command/);
  },
  async submitRun(open, client) {
    const stream = await stepped(open);
    const [, afterA] = await client.threads.getHistory(stream.threadId);
    const { run_id } = await stream.submitRun({ input: null, forkFrom: afterA.checkpoint.checkpoint_id });
    assert.deepEqual(await client.runs.join(stream.threadId, run_id), DONE);
    const [end, fork] = await client.threads.getHistory(stream.threadId);
    assert.deepEqual([end.metadata.source, fork.metadata.source], ["loop", "fork"]);
    assert.equal(fork.parent_checkpoint.checkpoint_id, afterA.checkpoint.checkpoint_id);
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
    const stream = open("steps", "not-a-thread");
    const errors = [];
    stream.onError((error) => errors.push(error));
    stream.startLifecycleWatcher();
    await stream.subscribe("values").catch((error) => errors.push(error));
    await until(() => errors.length, "the failure is heard of");
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
  async "agent.getTree"(open) {
    const stream = open("nested");
    const { run_id } = await stream.run.start({ input: { ...say("hi"), n: 0 } });
    await stream.output;
    const { tree } = await stream.agent.getTree({ run_id });
    assert.deepEqual([tree.namespace, tree.status, tree.graph_name], [[], "completed", "nested"]);
    assert.equal(tree.children[0].graph_name, "child");
  },
  async "state.get"(open) {
    const stream = await stepped(open);
    assert.deepEqual((await stream.state.get({ namespace: [] })).values, DONE);
  },
  async "state.listCheckpoints"(open) {
    const stream = await stepped(open);
    const { checkpoints } = await stream.state.listCheckpoints({ namespace: [], limit: 10 });
    assert.equal(checkpoints.length, 4);
  },
  async "state.fork"(open, client) {
    const stream = await stepped(open);
    const { checkpoints } = await stream.state.listCheckpoints({ namespace: [] });
    const { run_id, thread_id } = await stream.state.fork({ checkpoint_id: checkpoints[1].id });
    assert.equal(thread_id, stream.threadId);
    assert.deepEqual(await client.runs.join(thread_id, run_id), DONE);
  },
};

async function stepped(open) {
  const stream = open("steps");
  await stream.run.start({ input: { n: 0 } });
  assert.deepEqual(await stream.output, DONE);
  return stream;
}

// A stream whose thread waits for an answer.
async function asking(open) {
  const stream = open("hitl");
  await stream.run.start({ input: { n: 0 } });
  await until(() => stream.interrupts.length > 0 && stream.interrupted, "something is asked");
  return stream;
}

async function answered(client, stream, answer) {
  await until(async () => (await client.threads.get(stream.threadId)).status === "idle", "the run is done");
  const { values } = await client.threads.getState(stream.threadId);
  assert.deepEqual(values, { log: [`answer=${answer}`, "b"], n: 2 });
}

async function media(open, kind) {
  const stream = open("media");
  await stream.run.start({ input: say("show me") });
  const [one, ...more] = await collect(stream[kind]);
  assert.equal(await (await one.blob).text(), `bytes of ${kind}`);
  assert.deepEqual(more, []);
}

// The checks by the names of the members over one transport; what they open is closed.
export function streams(transport) {
  const check = (member) => async (client) => {
    const opened = [];
    const open = (assistantId, threadId) => {
      const options = { assistantId, transport, maxReconnectAttempts: 0 };
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
