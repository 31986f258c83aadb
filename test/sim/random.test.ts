/**
 * The swarm under seeds that nobody has run before. A failure prints `SIM_SEED=N`, which replays
 * it. POSTERN_SIM_MS makes it shorter or longer.
 */
import { test } from 'bun:test'
import { COUNTS } from '../process/counts.ts'
import { simulate } from './simulate.ts'

const RUN_MS = Number(process.env['POSTERN_SIM_MS'] ?? COUNTS.simulationMs)
/** Beyond the fixed ones, and never above 2^31. */
const FIRST_SEED = 1_000_000
const PATIENCE_MS = 3_600_000

test(
  'a cluster keeps its promises under seeds that nobody has seen',
  () => {
    const endMs = performance.now() + RUN_MS
    let seed = FIRST_SEED + (Date.now() % 2_000_000_000)
    for (; performance.now() < endMs; seed += 1) simulate(seed)
  },
  PATIENCE_MS,
)
