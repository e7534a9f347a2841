// Asks the service from Node, one text and a stream: npm install && node classify.js [HOST:PORT]
"use strict";
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const target = process.argv[2] || "127.0.0.1:50051";
const root = path.resolve(__dirname, "..", "..");
const own = path.join(root, "protos", "stratified", "v1", "sentiment.proto");
// google/rpc/status.proto comes beside the example: proto-loader brings google/protobuf alone.
const options = { includeDirs: [root, __dirname], keepCase: true, enums: String, defaults: true, oneofs: true };
const { stratified } = grpc.loadPackageDefinition(loader.loadSync(own, options));

// Tried again within the deadline, when the server says (its pushback is honoured), or backing off.
const retries = JSON.stringify({
  methodConfig: [{
    name: [{ service: "stratified.v1.SentimentService" }],
    retryPolicy: {
      maxAttempts: 4, initialBackoff: "0.1s", maxBackoff: "3s", backoffMultiplier: 2,
      retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
    },
  }],
});
const client = new stratified.v1.SentimentService(target, grpc.credentials.createInsecure(), {
  "grpc.service_config": retries,
});

function classify(text, domain = "") {
  const deadline = new Date(Date.now() + 5000);
  return new Promise((resolve, reject) =>
    client.Classify({ text, domain }, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply.result))));
}

function stream(texts) {
  return new Promise((resolve, reject) => {
    const answers = [];
    const call = client.ClassifyStream();
    call.on("data", (reply) => answers.push(reply.outcome === "error" ? reply.error.message : reply.result.label));
    call.on("error", reject);
    call.on("end", () => resolve(answers));
    call.write({ settings: {} });
    texts.forEach((text, n) => call.write({ item: { id: String(n), text } }));
    call.end();
  });
}

async function main() {
  const answer = await classify("The plot drags, but the ending is worth it.");
  console.log(JSON.stringify({ label: answer.label, score: answer.score, domain: answer.domain }));
  console.log(JSON.stringify(await stream(["Worth every minute.", " ", "Never again."])));
  try {
    await classify("   ");
  } catch (error) {
    console.log(grpc.status[error.code]);
  }
  client.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
