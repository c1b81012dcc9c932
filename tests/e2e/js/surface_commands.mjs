// What a thread stream's commands do, and what it says of questions that they answer.

import assert from "node:assert/strict";
import { DONE, say, until } from "./surface_parts.mjs";

export const commands = {
  async "run.start"(open, client) {
    const stream = open("steps");
    const { run_id } = await stream.run.start({ input: { n: 0 }, metadata: { by: "js" } });
    assert.equal((await client.runs.get(stream.threadId, run_id)).metadata.by, "js");
    await assert.rejects(open("nobody").run.start({ input: {} }), /nobody/);
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
    assert.deepEqual([asked.payload, asked.namespace, more], [{ question: "go on?" }, [], []]);
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

// A stream whose thread has seen a run of `steps`.
export async function stepped(open) {
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
