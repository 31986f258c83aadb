/** Mails a second and CPU a mail, accepted, synced and relayed, peers in turn. */
import { pause, SystemClock } from '../../src/base/clock.ts'
import { atLeast, atMost } from './bars.ts'
import { machineCpuMs } from './group.ts'
import { flood } from './load.ts'
import { median, short, spread, table } from './numbers.ts'
import { type Peer, startPostern, startPostfix } from './peers.ts'

const clock = new SystemClock()

export type Shape = { readonly sizeBytes: number; readonly connections: number }

export type Cell = {
  readonly peer: string
  readonly shape: Shape
  readonly round: number
  readonly count: number
  /** Until the sink has the last one; without a sink until the last 250. */
  readonly perS: number
  readonly cpuMs: number
  /** Cores that went to neither peer, load nor sink. */
  readonly neighbours: number
  readonly problem: string | null
}

export type Effort = {
  readonly rounds: number
  readonly seconds: number
  /** After the last mail, until CPU is read: work that was put off is counted too. */
  readonly settleMs: number
}

export const QUICK: Effort = { rounds: 1, seconds: 1, settleMs: 400 }
/** Longer than the silence after which the trace moves its log into the database. */
export const FULL: Effort = { rounds: 3, seconds: 1.5, settleMs: 2_300 }
/** For parts beside each other: a difference of two of them is rough in any case. */
export const PARTS_FULL: Effort = { rounds: 2, seconds: 1.5, settleMs: 400 }

const PROBE_MS = 300
const COUNT_MAX = 40_000

/** One cell: a short probe says how many mails fill the time. `begins`: called behind the probe. */
export async function measure(
  peer: Peer,
  shape: Shape,
  round: number,
  effort: Effort,
  begins: () => void = () => {},
): Promise<Cell> {
  const { sizeBytes, connections } = shape
  const { sink, group } = peer
  const run = async (count: number) => {
    const target = (sink?.count() ?? 0) + count
    const sent = await flood(peer.port, connections, count, sizeBytes)
    const arrived = sent.isWhole && (sink === null || (await sink.has(target, 30_000)))
    return { sent, arrived }
  }
  let probe = Math.max(connections, 10)
  let ratePerS = 0
  for (let tries = 0; tries < 3; tries += 1) {
    const began = clock.monoMs()
    await run(probe)
    const tookMs = clock.monoMs() - began
    ratePerS = (probe * 1_000) / tookMs
    if (tookMs > PROBE_MS) break
    probe = Math.ceil(ratePerS * (PROBE_MS / 1_000) * 1.5)
  }
  const count = Math.min(COUNT_MAX, Math.max(connections, Math.ceil(ratePerS * effort.seconds)))
  begins()
  const [cpu, sinkCpu, machine, began] = [
    group.cpuMs(),
    sink?.cpuMs() ?? 0,
    machineCpuMs(),
    clock.monoMs(),
  ]
  const { sent, arrived } = await run(count)
  const tookMs = clock.monoMs() - began
  const busyMs =
    machineCpuMs() - machine - (group.cpuMs() - cpu) - ((sink?.cpuMs() ?? 0) - sinkCpu) - sent.cpuMs
  await pause(clock, effort.settleMs)
  const problem = !sent.isWhole ? 'the load failed' : !arrived ? 'not all arrived' : null
  return {
    peer: peer.name,
    shape,
    round,
    count,
    perS: (count * 1_000) / tookMs,
    cpuMs: (group.cpuMs() - cpu) / count,
    neighbours: Math.max(0, busyMs / tookMs),
    problem,
  }
}

const BARE = 'postern, no inspectors'
const USUAL = 'postern, first inspectors'

function sizeName(sizeBytes: number): string {
  return sizeBytes >= 1_048_576 ? `${sizeBytes / 1_048_576} MB` : `${sizeBytes / 1_024} KB`
}

export function shapeName({ sizeBytes, connections }: Shape): string {
  return `${sizeName(sizeBytes)} c${connections}`
}

/** All shapes on all peers, `effort.rounds` times, each round with fresh ones. */
export async function throughput(
  directory: string,
  shapes: readonly Shape[],
  effort: Effort,
): Promise<readonly Cell[]> {
  const cells: Cell[] = []
  for (let round = 1; round <= effort.rounds; round += 1) {
    const peers: Peer[] = []
    try {
      peers.push(await startPostfix(directory))
      peers.push(await startPostern(directory, BARE, ''))
      peers.push(await startPostern(directory, USUAL, 'gtube,eicar,headers,attachments'))
      for (const peer of peers) await flood(peer.port, 4, 400, 4_096)
      for (const shape of shapes) {
        for (const peer of peers) cells.push(await measured(peer, shape, round, effort))
      }
    } finally {
      for (const peer of peers) await peer.stop()
    }
  }
  return cells
}

/** One cell, with a line about it as soon as it is known. */
export async function measured(
  peer: Peer,
  shape: Shape,
  round: number,
  effort: Effort,
): Promise<Cell> {
  const cell = await measure(peer, shape, round, effort)
  const note = cell.problem === null ? '' : `  ${cell.problem.toUpperCase()}`
  process.stdout.write(
    `  round ${round}  ${shapeName(shape).padEnd(10)} ${cell.peer.padEnd(26)} ${short(cell.perS).padStart(6)}/s  ${short(cell.cpuMs).padStart(5)} CPU ms/mail  neighbours ${short(cell.neighbours)}${note}\n`,
  )
  return cell
}

export function tablesOf(cells: readonly Cell[], base = 'postfix'): string {
  const names = [...new Set(cells.map(shapeOf))]
  const peers = [...new Set(cells.map(({ peer }) => peer))]
  const values = (peer: string, shape: string, key: 'perS' | 'cpuMs' | 'neighbours') =>
    of(cells, peer, shape).map((cell) => cell[key])
  const rows = (key: 'perS' | 'cpuMs' | 'neighbours') =>
    peers.map((peer) => [peer, ...names.map((shape) => spread(values(peer, shape, key)))])
  const ratios = (ratio: (cell: Cell, postfix: Cell) => number) =>
    peers
      .filter((peer) => peer !== base)
      .map((peer) => [
        peer,
        ...names.map((shape) => spread(against(cells, peer, shape, ratio, base))),
      ])
  return [
    'Mails a second, accepted, synced and relayed',
    table(['peer', ...names], rows('perS')),
    `Times ${base}, same round`,
    table(
      ['peer', ...names],
      ratios((cell, postfix) => cell.perS / postfix.perS),
    ),
    'CPU ms a mail, all processes of the peer',
    table(['peer', ...names], rows('cpuMs')),
    `Part of the CPU of ${base}, same round`,
    table(
      ['peer', ...names],
      ratios((cell, postfix) => cell.cpuMs / postfix.cpuMs),
    ),
    'Cores that neighbours took meanwhile',
    table(['peer', ...names], rows('neighbours')),
  ].join('\n')
}

function shapeOf({ shape }: Cell): string {
  return shapeName(shape)
}

function of(cells: readonly Cell[], peer: string, shape: string): readonly Cell[] {
  return cells.filter(
    (cell) => cell.peer === peer && shapeOf(cell) === shape && cell.problem === null,
  )
}

/** One ratio a round in which both peers ran. */
export function against(
  cells: readonly Cell[],
  peer: string,
  shape: string,
  ratio: (cell: Cell, other: Cell) => number,
  base = 'postfix',
): readonly number[] {
  return of(cells, peer, shape).flatMap((cell) => {
    const postfix = of(cells, base, shape).find(({ round }) => round === cell.round)
    return postfix === undefined ? [] : [ratio(cell, postfix)]
  })
}

/** The bars of the throughput run. A cell that failed is in no median, so it has a bar of its own. */
export function judgeThroughput(cells: readonly Cell[]): void {
  const failed = cells.filter(({ problem }) => problem !== null).length
  atMost('cells in which not every mail arrived, any peer', failed, 0)
  const speed = (peer: string, shape: string): number =>
    median(against(cells, peer, shape, (cell, postfix) => cell.perS / postfix.perS))
  const cpu = (peer: string, shape: string): number =>
    median(against(cells, peer, shape, (cell, postfix) => cell.cpuMs / postfix.cpuMs))
  for (const shape of new Set(cells.map(shapeOf))) {
    const { sizeBytes, connections } =
      cells.find((cell) => shapeOf(cell) === shape)?.shape ?? ({} as Shape)
    for (const peer of [BARE, USUAL]) {
      const what = `${shape}, ${peer.replace('postern, ', '')}`
      if (sizeBytes >= 1_048_576) {
        atLeast(`mails/s against Postfix, ${what}`, speed(peer, shape), 1)
      } else if (connections >= 10) {
        const [bar, target] = connections >= 100 ? [3, 5] : [2, 3]
        atLeast(`mails/s against Postfix, ${what}`, speed(peer, shape), bar, target)
        const [most, hoped] = peer === BARE ? [1 / 3, 1 / 5] : [1 / 2, 1 / 3]
        atMost(`CPU a mail against Postfix, ${what}`, cpu(peer, shape), most, hoped)
      }
    }
  }
}
