// Checks docs/asyncapi.yaml and docs/openapi.yaml, and says what is wrong with them and where.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Parser } from "@asyncapi/parser";
import { Validator } from "@seriousme/openapi-schema-validator";

const docs = new URL("../../docs/", import.meta.url);
const problems = [];

const read = (name) => readFileSync(fileURLToPath(new URL(name, docs)), "utf8");

// Severity 0 is an error and 1 a warning; below that are matters of taste, and that there is a newer
// version of the format.
const { diagnostics } = await new Parser().parse(read("asyncapi.yaml"));
for (const { severity, path, message, range } of diagnostics) {
  if (severity > 1) continue;
  problems.push(`asyncapi.yaml:${range.start.line + 1}: ${path.join("/")}: ${message}`);
}

const { valid, errors } = await new Validator().validate(read("openapi.yaml"));
if (!valid) {
  // A list, or one text for what it cannot read.
  for (const error of [errors].flat()) {
    problems.push(`openapi.yaml: ${error.instancePath ?? ""}: ${error.message ?? error}`);
  }
}

for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);
console.log("asyncapi.yaml and openapi.yaml are valid");
