// A load with thresholds: k6 run examples/k6.js -e TARGET=127.0.0.1:50051 -e RATE=50
// Refusals (RESOURCE_EXHAUSTED) are the service's answer to too much load; they are counted apart from failures.
import grpc from "k6/net/grpc";
import { check } from "k6";
import { Counter } from "k6/metrics";

const target = __ENV.TARGET || "127.0.0.1:50051";
const refused = new Counter("refused");
const client = new grpc.Client();
const REQUEST = { "text": "The plot drags, but the ending is worth it." };

export const options = {
  scenarios: {
    steady: {
      executor: "constant-arrival-rate", rate: Number(__ENV.RATE || 20), timeUnit: "1s", duration: "30s",
      preAllocatedVUs: 20, maxVUs: 200,
    },
  },
  thresholds: { grpc_req_duration: ["p(99)<1000"], checks: ["rate>0.999"] },
};

export default function () {
  if (__ITER === 0) client.connect(target, { plaintext: true, reflect: true });
  const reply = client.invoke("stratified.v1.SentimentService/Classify", REQUEST, { timeout: "5s" });
  if (reply.status === grpc.StatusResourceExhausted) refused.add(1);
  check(reply, { answered: (r) => r.status === grpc.StatusOK || r.status === grpc.StatusResourceExhausted });
}
