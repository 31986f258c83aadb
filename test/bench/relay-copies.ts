/**
 * What a copy costs a relay: one node with a mirror and one without, same run, in turn; its rate,
 * the CPU of both nodes together, and what the copy adds between the dot and the 250.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { Postern } from '../process/postern.ts'
import { Group } from './group.ts'
import { steady } from './load.ts'
import { median, percentile, short, spread, table } from './numbers.ts'
import { DOMAIN, type Peer, startPostern } from './peers.ts'
import { type Effort, FULL, measure, type Shape } from './throughput.ts'

const clock = new SystemClock()
const JOINED_MS_MAX = 30_000
const SHAPES: readonly Shape[] = [
  { sizeBytes: 4_096, connections: 10 },
  { sizeBytes: 4_096, connections: 100 },
  { sizeBytes: 51_200, connections: 10 },
  { sizeBytes: 1_048_576, connections: 10 },
]

async function main(rounds: number): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'postern-relay-copies-'))
  const alone = await startPostern(directory, 'alone', '')
  const owner = await startPostern(directory, 'with a mirror', '')
  const init = { method: 'POST', body: '{}' }
  const { token } = await owner.node.api<{ token: string }>('/api/v1/invitations', init)
  const group = new Group('mirror')
  const mirror = await Postern.start({
    data: join(directory, 'mirror'),
    wrapper: group.wrapper,
    options: ['--join', token],
  })
  group.adopt(mirror.pid)
  await untilCopied(owner)
  const effort: Effort = { ...FULL, rounds }
  const rows: string[][] = []
  for (const shape of SHAPES) {
    const ratios: number[] = []
    const rates: [number[], number[]] = [[], []]
    const cpus: [number[], number[], number[]] = [[], [], []]
    for (let round = 0; round < rounds; round += 1) {
      for (const peer of round % 2 === 0 ? [alone, owner] : [owner, alone]) {
        const before = group.cpuMs()
        const cell = await measure(peer, shape, round, effort)
        if (cell.problem !== null) console.log(`${peer.name}: ${cell.problem}`)
        const place = peer === alone ? 0 : 1
        rates[place].push(cell.perS)
        cpus[place].push(cell.cpuMs)
        if (place === 1) cpus[2].push((group.cpuMs() - before) / cell.count)
      }
      ratios.push((rates[1].at(-1) ?? 0) / (rates[0].at(-1) ?? 1))
    }
    rows.push([
      `${shape.sizeBytes} c${shape.connections}`,
      spread(rates[0]),
      spread(rates[1]),
      spread(ratios),
      spread(cpus[0]),
      spread(cpus[1]),
      spread(cpus[2]),
    ])
  }
  console.log(
    table(['shape', 'alone/s', 'copied/s', 'ratio', 'CPU alone', 'CPU owner', 'CPU mirror'], rows),
  )
  const added: number[] = []
  for (let round = 0; round < rounds; round += 1) {
    const p50: number[] = []
    for (const peer of [alone, owner]) {
      const { ackMs } = await steady(peer, { ratePerS: 100, seconds: 5, sizeBytes: 4_096 })
      p50.push(percentile(ackMs, 0.5))
    }
    console.log(`dot p50: alone ${short(p50[0] ?? 0)} ms, copied ${short(p50[1] ?? 0)} ms`)
    added.push((p50[1] ?? 0) - (p50[0] ?? 0))
  }
  console.log(`added p50: ${spread(added)}, median ${short(median(added))} ms`)
  const metrics = await (await owner.node.fetch('/metrics')).text()
  console.log(
    metrics
      .split('\n')
      .filter((line) => /^postern_(copies|unrepl)/.test(line))
      .join('\n'),
  )
  await mirror.stop()
  await group.end()
  await owner.stop()
  await alone.stop()
  rmSync(directory, { recursive: true, force: true })
}

/** Until a mail has had its copy. */
async function untilCopied(owner: Peer & { readonly node: Postern }): Promise<void> {
  const untilMono = clock.monoMs() + JOINED_MS_MAX
  while (clock.monoMs() < untilMono) {
    await steady(owner, { ratePerS: 10, seconds: 0.2, sizeBytes: 1_000 })
    if (/^postern_copies_total [1-9]/m.test(await (await owner.node.fetch('/metrics')).text()))
      return
    await pause(clock, 500)
  }
  throw new Error(`no copy was made within ${JOINED_MS_MAX / 1_000} s of ${DOMAIN}`)
}

await main(Number(process.argv[2] ?? 2))
process.exit(0)
