/** The AI SDK with our tools, over a scripted model at MODEL_URL; V6=1 runs version 6 of the SDK. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Onehop } from "../dist/index.js";

const six = process.env["V6"] === "1";
const { streamText, stepCountIs, isStepCount } = (await import(six ? "ai-v6" : "ai")) as any;
const { createOpenAICompatible } = (await import(
  six ? "ai-sdk-openai-compatible-v6" : "@ai-sdk/openai-compatible"
)) as any;
const { onehopTools } = await import(six ? "../dist-v6/ai.js" : "../dist/ai.js");

test("a model works with Python, its variables and its pictures", async () => {
  await using session = await new Onehop().session();
  const provider = createOpenAICompatible({ name: "scripted", baseURL: process.env["MODEL_URL"]! });
  const answer = streamText({
    model: provider("chat"),
    tools: onehopTools(session, { shell: true, timeout_s: 20 }),
    prompt: "Plot it.",
    stopWhen: (stepCountIs ?? isStepCount)(5),
  });
  assert.equal(await answer.text, "It is drawn.");
  const steps = await answer.steps;
  const outputs = steps.flatMap((step: any) => step.toolResults.map((one: any) => one.output));
  assert.deepEqual(outputs.map((one: any) => one.text.split("\n")[0]), ["x is set", "<Figure size 640x480 with 1 Axes>", "7"]);
  assert.equal(outputs[1].pictures[0].mediaType, "image/png");
  assert.equal((await session.run("x")).text, "6");
});
