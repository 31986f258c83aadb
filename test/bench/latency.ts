/** From the last octet of a mail to its 250, at a steady 100 mails a second. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { atMost } from './bars.ts'
import { type Latency, steady } from './load.ts'
import { median, percentile, short, spread, table } from './numbers.ts'
import { type Peer, startPostern, startPostfix } from './peers.ts'

const clock = new SystemClock()
const RAM_DISK = '/dev/shm'
const RATE_PER_S = 100
const SIZE_BYTES = 4_096
/** Blocks that a peer writes ahead at its start go out meanwhile. */
const CALM_MS = 3_000

type Round = { readonly peer: string; readonly latency: Latency }

async function rounds(directory: string, count: number, seconds: number): Promise<Round[]> {
  const found: Round[] = []
  const peers: Peer[] = []
  try {
    peers.push(await startPostfix(directory))
    peers.push(await startPostern(directory, 'postern', ''))
    for (const peer of peers) await steady(peer, { ratePerS: 100, seconds: 2, sizeBytes: 4_096 })
    await pause(clock, CALM_MS)
    for (let round = 1; round <= count; round += 1) {
      for (const peer of peers) {
        const latency = await steady(peer, { ratePerS: RATE_PER_S, seconds, sizeBytes: SIZE_BYTES })
        found.push({ peer: peer.name, latency })
        const { ackMs, failed } = latency
        process.stdout.write(
          `  round ${round}  ${peer.name.padEnd(10)} p50 ${short(median(ackMs))}  p90 ${short(percentile(ackMs, 0.9))}  p99 ${short(percentile(ackMs, 0.99))} ms${failed > 0 ? `  ${failed} FAILED` : ''}\n`,
        )
        await pause(clock, 500)
      }
    }
  } finally {
    for (const peer of peers) await peer.stop()
  }
  return found
}

function rows(place: string, found: readonly Round[]): string[][] {
  return [...new Set(found.map(({ peer }) => peer))].map((peer) => {
    const own = found.filter((round) => round.peer === peer).map(({ latency }) => latency)
    const column = (part: 'ackMs' | 'wholeMs', share: number): string =>
      spread(own.map((latency) => percentile(latency[part], share)))
    return [
      `${peer}, ${place}`,
      ...[0.5, 0.9, 0.99].map((share) => column('ackMs', share)),
      ...[0.5, 0.99].map((share) => column('wholeMs', share)),
      String(own.reduce((sum, { failed }) => sum + failed, 0)),
    ]
  })
}

/** The median over the rounds of one percentile of the time to the 250. */
function typical(found: readonly Round[], peer: string, share: number): number {
  const own = found.filter((round) => round.peer === peer)
  return median(own.map(({ latency }) => percentile(latency.ackMs, share)))
}

/** Prints the table and judges the bars. */
export async function latencyRun(directory: string, isQuick: boolean): Promise<void> {
  const seconds = isQuick ? 4 : 10
  process.stdout.write(`on the disk of ${directory}\n`)
  const disk = await rounds(directory, isQuick ? 2 : 5, seconds)
  let ram: Round[] = []
  if (existsSync(RAM_DISK)) {
    process.stdout.write(`on the RAM disk ${RAM_DISK}: nothing is durable there\n`)
    const place = mkdtempSync(join(RAM_DISK, 'postern-bench-'))
    try {
      ram = await rounds(place, isQuick ? 2 : 5, seconds)
    } finally {
      rmSync(place, { recursive: true, force: true })
    }
  }
  process.stdout.write(
    `\nTime to the 250 in ms at ${RATE_PER_S} mails of ${SIZE_BYTES} octets a second, no inspectors; percentiles of a round, median (least-most) of the rounds\n\n`,
  )
  process.stdout.write(
    table(
      ['', 'dot p50', 'dot p90', 'dot p99', 'whole p50', 'whole p99', 'failed'],
      [...rows('disk', disk), ...rows('RAM disk', ram)],
    ),
  )
  const failed = [...disk, ...ram].reduce((sum, { latency }) => sum + latency.failed, 0)
  atMost('mails of the latency run without a 250', failed, 0)
  const [ours, theirs] = ['postern', 'postfix']
  atMost(
    'dot to 250, p50 on disk, against Postfix',
    typical(disk, ours, 0.5) / typical(disk, theirs, 0.5),
    1,
  )
  if (ram.length > 0) {
    atMost(
      'dot to 250, p99 on a RAM disk, against Postfix',
      typical(ram, ours, 0.99) / typical(ram, theirs, 0.99),
      1.5,
    )
  }
}
