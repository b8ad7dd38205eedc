// Where TEMPER_COVERAGE names a folder (npm test), processes and threads that a test starts write there what of dist/
// they ran: scripts/coverage.mjs adds it to what vitest counts in the test's own process.
if (process.env.TEMPER_COVERAGE !== undefined) process.env.NODE_V8_COVERAGE = process.env.TEMPER_COVERAGE;
