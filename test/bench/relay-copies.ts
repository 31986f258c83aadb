/**
 * What a copy costs a relay: one node without and one with a mirror, and Postfix, same run, in turn;
 * their rates, the CPU of both nodes together, and what the copy adds between the dot and the 250
 * beside the time of a sync of the mirror's disk.
 * `bun test/bench/relay-copies.ts [--ram] [--cores=N] [ROUNDS]`. What in a cluster each node has for
 * itself: with `--ram` two do not share a disk, with `--cores` each of them, and Postfix, has so much
 * of the processors and no more, so that the mirror and the load take nothing from the owner.
 */
import { closeSync, fdatasync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { Postern } from '../process/postern.ts'
import { Group } from './group.ts'
import { steady } from './load.ts'
import { median, percentile, short, spread, table } from './numbers.ts'
import {
  DOMAIN,
  noPostfix,
  type Peer,
  type PosternPeer,
  startPostern,
  startPostfix,
} from './peers.ts'
import { type Effort, FULL, measure, type Shape, shapeName } from './throughput.ts'

const clock = new SystemClock()
const JOINED_MS_MAX = 30_000
/** A program that was started just now is not as fast as it will be. */
const WARM_MS = 15_000
const RAM_DISK = '/dev/shm'
const SHAPES: readonly Shape[] = [
  { sizeBytes: 4_096, connections: 10 },
  { sizeBytes: 4_096, connections: 100 },
  { sizeBytes: 51_200, connections: 10 },
  { sizeBytes: 1_048_576, connections: 10 },
]
const LATENCY = { ratePerS: 100, seconds: 5, sizeBytes: 4_096 }

type Cast = {
  readonly alone: PosternPeer
  readonly owner: PosternPeer
  readonly postfix: Peer | null
  readonly mirror: Postern
  readonly mirrorGroup: Group
}

/** One round of one shape. */
type Row = {
  readonly aloneS: number
  readonly copiedS: number
  readonly postfixS: number
  readonly aloneCpuMs: number
  readonly ownerCpuMs: number
  readonly mirrorCpuMs: number
  readonly postfixCpuMs: number
  readonly neighbours: number
}

type Words = { readonly rounds: number; readonly isRam: boolean; readonly cores: number | null }

async function main({ rounds, isRam, cores }: Words): Promise<void> {
  const directory = mkdtempSync(join(isRam ? RAM_DISK : tmpdir(), 'postern-relay-copies-'))
  const cast = await open(directory)
  await warm(cast)
  if (cores !== null) {
    const { alone, owner, postfix, mirrorGroup } = cast
    for (const group of [alone.group, owner.group, mirrorGroup]) group.limit(cores)
    postfix?.group.limit(cores)
  }
  const effort: Effort = { ...FULL, rounds }
  const rows: string[][] = []
  for (const shape of SHAPES) {
    const cells: Row[] = []
    for (let round = 0; round < rounds; round += 1)
      cells.push(await compare(cast, shape, round, effort))
    const of = (value: (row: Row) => number): string => spread(cells.map(value))
    rows.push([
      shapeName(shape),
      of(({ aloneS }) => aloneS),
      of(({ copiedS }) => copiedS),
      of(({ copiedS, aloneS }) => copiedS / aloneS),
      of(({ postfixS }) => postfixS),
      of(({ copiedS, postfixS }) => copiedS / postfixS),
      of(({ aloneCpuMs }) => aloneCpuMs),
      of(({ ownerCpuMs }) => ownerCpuMs),
      of(({ mirrorCpuMs }) => mirrorCpuMs),
      of(({ ownerCpuMs, mirrorCpuMs }) => ownerCpuMs + mirrorCpuMs),
      of(({ postfixCpuMs }) => postfixCpuMs),
      of(({ neighbours }) => neighbours),
    ])
    console.log(`${shapeName(shape)}: ratio ${rows.at(-1)?.[3]}, times Postfix ${rows.at(-1)?.[5]}`)
  }
  const head = ['shape', 'alone/s', 'copied/s', 'ratio', 'Postfix/s', 'copied / Postfix']
  const cpu = ['CPU ms alone', 'owner', 'mirror', 'both nodes', 'Postfix', 'neighbours, cores']
  console.log(table([...head, ...cpu], rows))
  await latency(cast, directory, rounds)
  const metrics = await (await cast.owner.node.fetch('/metrics')).text()
  console.log(
    metrics
      .split('\n')
      .filter((line) => /^postern_(copies|unrepl|replication_ack_seconds_(sum|count))/.test(line))
      .join('\n'),
  )
  await cast.mirror.stop()
  await cast.mirrorGroup.end()
  for (const peer of [cast.owner, cast.alone, cast.postfix]) await peer?.stop()
  rmSync(directory, { recursive: true, force: true })
}

async function open(directory: string): Promise<Cast> {
  const why = noPostfix()
  if (why !== null) console.log(`without Postfix: ${why}`)
  const postfix = why === null ? await startPostfix(directory) : null
  const alone = await startPostern(directory, 'alone', '')
  const owner = await startPostern(directory, 'with a mirror', '')
  const init = { method: 'POST', body: '{}' }
  const { token } = await owner.node.api<{ token: string }>('/api/v1/invitations', init)
  const mirrorGroup = new Group('mirror')
  const mirror = await Postern.start({
    data: join(directory, 'mirror'),
    wrapper: mirrorGroup.wrapper,
    options: ['--join', token],
  })
  mirrorGroup.adopt(mirror.pid)
  await untilCopied(owner)
  return { alone, owner, postfix, mirror, mirrorGroup }
}

async function warm({ alone, owner, postfix }: Cast): Promise<void> {
  for (const peer of [alone, owner, postfix]) {
    if (peer === null) continue
    const untilMono = clock.monoMs() + WARM_MS
    while (clock.monoMs() < untilMono) {
      await measure(peer, { sizeBytes: 4_096, connections: 10 }, 0, { ...FULL, settleMs: 0 })
    }
  }
}

/** All of them once, who was last first. */
async function compare(cast: Cast, shape: Shape, round: number, effort: Effort): Promise<Row> {
  const { alone, owner, postfix, mirrorGroup } = cast
  const peers = [alone, owner, ...(postfix === null ? [] : [postfix])]
  const cells = new Map<Peer, { perS: number; cpuMs: number; mirrorMs: number; others: number }>()
  for (const peer of round % 2 === 0 ? peers : peers.toReversed()) {
    let beforeMs = 0
    const cell = await measure(peer, shape, round, effort, () => {
      beforeMs = mirrorGroup.cpuMs()
    })
    if (cell.problem !== null) console.log(`${peer.name}: ${cell.problem}`)
    const mirrorMs = (mirrorGroup.cpuMs() - beforeMs) / cell.count
    // What the mirror does meanwhile is no neighbour's.
    const mirrorCores = peer === owner ? (mirrorMs * cell.perS) / 1_000 : 0
    const others = Math.max(0, cell.neighbours - mirrorCores)
    cells.set(peer, { perS: cell.perS, cpuMs: cell.cpuMs, mirrorMs, others })
  }
  const [a, b, c] = [alone, owner, postfix].map((peer) => peer && cells.get(peer))
  return {
    aloneS: a?.perS ?? Number.NaN,
    copiedS: b?.perS ?? Number.NaN,
    postfixS: c?.perS ?? Number.NaN,
    aloneCpuMs: a?.cpuMs ?? Number.NaN,
    ownerCpuMs: b?.cpuMs ?? Number.NaN,
    mirrorCpuMs: b?.mirrorMs ?? Number.NaN,
    postfixCpuMs: c?.cpuMs ?? Number.NaN,
    neighbours: Math.max(...[...cells.values()].map(({ others }) => others)),
  }
}

/** From the dot to the 250 at a steady rate, and a sync of the same disk at the same rate. */
async function latency({ alone, owner }: Cast, directory: string, rounds: number): Promise<void> {
  const rows: string[][] = []
  const added: number[] = []
  const synced: number[] = []
  for (let round = 0; round < rounds; round += 1) {
    const p50 = new Map<Peer, number>()
    for (const peer of round % 2 === 0 ? [alone, owner] : [owner, alone]) {
      const { ackMs } = await steady(peer, LATENCY)
      p50.set(peer, percentile(ackMs, 0.5))
    }
    const [before, after] = [p50.get(alone) ?? Number.NaN, p50.get(owner) ?? Number.NaN]
    added.push(after - before)
    synced.push(await syncMs(directory))
    rows.push([before, after, added.at(-1) ?? 0, synced.at(-1) ?? 0].map(short))
  }
  console.log(`Dot to 250, p50 ms, at ${LATENCY.ratePerS} mails a second`)
  console.log(table(['alone', 'copied', 'added', 'sync of the disk'], rows))
  const bar = median(synced) + 1
  console.log(
    `added p50 ${short(median(added))} ms, bar ${short(bar)} ms: ${median(added) <= bar ? 'met' : 'NOT MET'}`,
  )
}

/** p50 of an fdatasync of 4 KB written over what is there, as the spool of a mirror does. */
async function syncMs(directory: string): Promise<number> {
  const path = join(directory, 'sync')
  const file = openSync(path, 'w+')
  const sync = (): Promise<void> =>
    new Promise((resolve, reject) =>
      fdatasync(file, (error) => (error === null ? resolve() : reject(error))),
    )
  writeSync(file, Buffer.alloc(4 * 1024 * 1024))
  await sync()
  const bytes = Buffer.alloc(LATENCY.sizeBytes, 'x')
  const took: number[] = []
  for (let count = 0; count < 300; count += 1) {
    writeSync(file, bytes, 0, bytes.length, count * bytes.length)
    const beganMs = clock.monoMs()
    await sync()
    took.push(clock.monoMs() - beganMs)
    await pause(clock, 1_000 / LATENCY.ratePerS)
  }
  closeSync(file)
  rmSync(path)
  return percentile(took, 0.5)
}

/** Until a mail has had its copy. */
async function untilCopied(owner: PosternPeer): Promise<void> {
  const untilMono = clock.monoMs() + JOINED_MS_MAX
  while (clock.monoMs() < untilMono) {
    await steady(owner, { ratePerS: 10, seconds: 0.2, sizeBytes: 1_000 })
    if (/^postern_copies_total [1-9]/m.test(await (await owner.node.fetch('/metrics')).text()))
      return
    await pause(clock, 500)
  }
  throw new Error(`no copy was made within ${JOINED_MS_MAX / 1_000} s of ${DOMAIN}`)
}

const words = process.argv.slice(2)
const cores = words.find((word) => word.startsWith('--cores='))?.slice('--cores='.length)
await main({
  rounds: Number(words.find((word) => !word.startsWith('-')) ?? 2),
  isRam: words.includes('--ram'),
  cores: cores === undefined ? null : Number(cores),
})
process.exit(0)
