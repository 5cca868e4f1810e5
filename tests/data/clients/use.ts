// What `openapi-typescript` makes of the document, checked by tsc and used against a box by test_generated_clients.py.
import { EventSource } from "eventsource";
import createClient from "openapi-fetch";
import type { paths } from "./schema";

declare const process: { argv: string[] };

const [url] = process.argv.slice(2);
const client = createClient<paths, "application/json">({ baseUrl: url });

function given<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

const query = { device_id: ["van", "bus"], bbox: [1, 1, 3, 3] as [number, number, number, number] };
const page = given(await client.GET("/v1/records", { params: { query } }));
const times: string[] = page.records.map((record) => record.timestamp);
const device = given(await client.GET("/v1/devices/{device_id}", { params: { path: { device_id: "a/b" } } }));
const stored = given(await client.POST("/v1/records", { body: [{ device_id: "ts", latitude: 1, longitude: 2 }] }));
const asked = { body: { query: "SELECT device_id FROM records WHERE device_id = 'van'" } };
const rows: unknown[][] = given(await client.POST("/v1/sql", asked)).rows;
const named = { params: { query: { fields: ["count" as const, "first" as const], device_id: ["van"] } } };
const [summary] = given(await client.GET("/v1/summary", named)).summaries;

const source = new EventSource(`${url}/v1/live?device_id=van`);
const event = await new Promise<MessageEvent>((go, fail) => {
  source.addEventListener("latest", go);
  source.addEventListener("message", () => fail(new Error("an event without a name")));
  source.addEventListener("error", (error) => fail(error));
});
source.close();

console.log(
  JSON.stringify({
    devices: page.records.map((record) => record.device_id),
    times,
    device: device.device_id,
    accepted: stored.accepted,
    rows,
    count: summary.count,
    event: JSON.parse(event.data).records[0].device_id,
  }),
);
