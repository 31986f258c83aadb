/**
 * The swarm: many seeds, each a cluster with its own weather, faults and people. A failure prints
 * `SIM_SEED=N`; `bun test/sim/run.ts --seed N --trace` tells its story. POSTERN_SIM_SEEDS makes it
 * shorter or longer.
 */
import { expect, test } from 'bun:test'
import { COUNTS } from '../process/counts.ts'
import { Seen, SOMETIMES } from './seen.ts'
import { simulate } from './simulate.ts'
import { ofSeed } from './world.ts'

const SEEDS = Number(process.env['POSTERN_SIM_SEEDS'] ?? COUNTS.simulations)
/** One in so many is run twice. */
const TWICE = 10
/** From so many on, what never happened is a failure. */
const ENOUGH_SEEDS = 300
const PATIENCE_MS = 3_600_000

test(
  'a cluster keeps its promises under every mix of faults, and the faults happen',
  () => {
    const seen = new Seen()
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const ended = simulate(seed)
      seen.add(ended.seen)
      if (seed % TWICE === 0) expect(simulate(seed).hash, `seed ${seed}`).toBe(ended.hash)
    }
    if (SEEDS >= ENOUGH_SEEDS) expect(seen.never(SOMETIMES)).toEqual([])
  },
  PATIENCE_MS,
)

test('whatever ends a simulation, the seed that replays it is said', () => {
  const fails = (error: unknown) => () =>
    ofSeed(7, () => {
      throw error
    })
  expect(fails(new TypeError('no node'))).toThrow(/^SIM_SEED=7: no node$/)
  expect(fails('no node')).toThrow(/^SIM_SEED=7: no node$/)
  const noKnobs = (): never => {
    throw new TypeError('no knobs')
  }
  expect(() => simulate(7, { tune: noKnobs })).toThrow(/^SIM_SEED=7: no knobs$/)
})
