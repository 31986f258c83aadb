/**
 * `bun test/sim/run.ts --seed N [--trace]` replays one seed and tells its story;
 * `--seeds A..B` runs many and says what was seen; `--cost N` what a quiet cluster of N nodes sends.
 * The exit code is 1 after a violation.
 */
import { CALM } from './network.ts'
import { Seen } from './seen.ts'
import { Simulation, simulate } from './simulate.ts'

function main(words: readonly string[]): number {
  const value = (name: string): string | null => {
    const at = words.indexOf(name)
    return at < 0 ? null : (words[at + 1] ?? null)
  }
  const seed = value('--seed')
  if (seed !== null) return replay(Number(seed), words.includes('--trace'))
  const nodes = value('--cost')
  if (nodes !== null) return cost(Number(nodes))
  const [from = 1, to = 100] = (value('--seeds') ?? '1..100').split('..').map(Number)
  return many(from, to)
}

function replay(seed: number, isTold: boolean): number {
  try {
    const ended = simulate(seed, { isTold })
    if (isTold) print(ended.story.join('\n'))
    print(`seed ${seed}: ${ended.events} events, ${ended.writes} writes, hash ${ended.hash}`)
    return 0
  } catch (error) {
    if (!(error instanceof Error)) throw error
    if (Array.isArray(error.cause)) print(error.cause.join('\n'))
    print(error.message)
    return 1
  }
}

function many(from: number, to: number): number {
  const seen = new Seen()
  let failed = 0
  let events = 0
  let writes = 0
  const began = performance.now()
  for (let seed = from; seed <= to; seed += 1) {
    try {
      const ended = simulate(seed)
      events += ended.events
      writes += ended.writes
      seen.add(ended.seen)
    } catch (error) {
      failed += 1
      const message = error instanceof Error ? error.message : String(error)
      print(`seed ${seed}: ${message.split('\n')[0]?.slice(0, 200)}`)
    }
  }
  const tookMs = performance.now() - began
  const count = to - from + 1
  for (const [what, times] of [...seen.seeds].sort())
    print(`${String(times).padStart(6)} seeds: ${what}`)
  print(`${count} seeds, ${failed} failed, ${events} events, ${writes} writes`)
  print(`${(tookMs / count).toFixed(0)} ms a seed`)
  return failed > 0 ? 1 : 0
}

/** Bytes a second that one node sends, headers of UDP and TCP included, once all have met. */
function cost(nodes: number): number {
  const sim = new Simulation(1, {
    tune: (knobs) => ({
      ...knobs,
      nodes,
      weather: CALM,
      faults: { ...knobs.faults, clocks: false },
    }),
  })
  const seconds = 60
  sim.world.runFor(60_000)
  const sent = (plane: 'udpOut' | 'tcpOut'): number =>
    sim.nodes.reduce((sum, { host }) => sum + sim.fabric.trafficOf(host)[plane], 0)
  const before = [sent('udpOut'), sent('tcpOut')] as const
  const began = process.cpuUsage()
  sim.world.runFor(seconds * 1_000)
  const { user, system } = process.cpuUsage(began)
  const rate = (bytes: number): string => `${Math.round(bytes / nodes / seconds)} B/s`
  const udp = rate(sent('udpOut') - before[0])
  const tcp = rate(sent('tcpOut') - before[1])
  const cpu = ((user + system) / 10_000 / nodes / seconds).toFixed(2)
  print(`${nodes} nodes: UDP ${udp} and TCP ${tcp} a node, ${cpu} % of a core`)
  sim.close()
  return 0
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

if (import.meta.main) process.exitCode = main(process.argv.slice(2))
