/**
 * `bun test/sim/run.ts --seed N [--trace]` replays one seed and tells its story;
 * `--seeds A..B` runs many and says what was seen. The exit code is 1 after a violation.
 */
import { simulate } from './simulate.ts'

function main(words: readonly string[]): number {
  const value = (name: string): string | null => {
    const at = words.indexOf(name)
    return at < 0 ? null : (words[at + 1] ?? null)
  }
  const seed = value('--seed')
  if (seed !== null) return replay(Number(seed), words.includes('--trace'))
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
  const seen = new Map<string, number>()
  let failed = 0
  let events = 0
  let writes = 0
  const began = performance.now()
  for (let seed = from; seed <= to; seed += 1) {
    try {
      const ended = simulate(seed)
      events += ended.events
      writes += ended.writes
      for (const [what, count] of ended.seen)
        seen.set(what, (seen.get(what) ?? 0) + Math.min(1, count))
    } catch (error) {
      failed += 1
      const message = error instanceof Error ? error.message : String(error)
      print(`seed ${seed}: ${message.split('\n')[0]?.slice(0, 200)}`)
    }
  }
  const tookMs = performance.now() - began
  const count = to - from + 1
  for (const [what, times] of [...seen].sort()) print(`${String(times).padStart(6)} seeds: ${what}`)
  print(`${count} seeds, ${failed} failed, ${events} events, ${writes} writes`)
  print(`${(tookMs / count).toFixed(0)} ms a seed`)
  return failed > 0 ? 1 : 0
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

if (import.meta.main) process.exitCode = main(process.argv.slice(2))
