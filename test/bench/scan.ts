/**
 * What looking into mail costs: all local inspectors beside Postfix with Rspamd as its milter, and
 * both with clamd behind, in turn.
 */
import { INSPECTOR_NAMES } from '../../src/config/schema.ts'
import { Wire } from '../process/wire.ts'
import { atLeast, atMost } from './bars.ts'
import { flood } from './load.ts'
import { median } from './numbers.ts'
import {
  DOMAIN,
  MARKER,
  type Peer,
  type Scanner,
  startMilterChain,
  startPostern,
  startPosternEngines,
} from './peers.ts'
import {
  against,
  type Cell,
  type Effort,
  measured,
  type Shape,
  shapeName,
  tablesOf,
} from './throughput.ts'

/** Without the network: no name server is asked by any peer. */
const LOCAL = INSPECTOR_NAMES.filter((name) => name !== 'sender' && name !== 'blocklists').join(',')
const OURS = 'postern, all local'

/** A chain of others and what is held against it: the first of ours by CPU too. */
type Match = {
  readonly chain: string
  readonly scanners: readonly Scanner[]
  /** Ours by the engines that each has. */
  readonly ours: Readonly<Record<string, readonly Scanner[]>>
}

const MATCHES: readonly Match[] = [
  {
    chain: 'postfix-rspamd',
    scanners: ['rspamd'],
    ours: { [OURS]: [], 'postern, all local, rspamd': ['rspamd'] },
  },
  {
    chain: 'postfix-rspamd-clamd',
    scanners: ['rspamd', 'clamd'],
    ours: {
      'postern, all local, clamd': ['clamd'],
      'postern, all local, rspamd, clamd': ['rspamd', 'clamd'],
    },
  },
]

const PROGRAMS: Readonly<Record<Scanner, readonly [program: string, inPackage: string]>> = {
  rspamd: ['rspamd', 'rspamd'],
  clamd: ['clamd', 'clamav-daemon'],
}

export async function scanRun(directory: string, effort: Effort): Promise<void> {
  const shapes = [4_096, 51_200].flatMap((sizeBytes) =>
    [10, 100].map((connections): Shape => ({ sizeBytes, connections })),
  )
  for (const match of MATCHES) {
    const missing = match.scanners.map((name) => PROGRAMS[name]).find(([name]) => !Bun.which(name))
    if (missing !== undefined) {
      process.stdout.write(`${match.chain} is left out: the package ${missing[1]} is missing\n`)
      continue
    }
    const cells: Cell[] = []
    for (let round = 1; round <= effort.rounds; round += 1)
      cells.push(...(await roundOf(match, directory, shapes, round, effort)))
    process.stdout.write(`\n${tablesOf(cells, match.chain)}\n`)
    judge(match, cells, shapes)
  }
}

async function roundOf(
  { chain, scanners, ours }: Match,
  directory: string,
  shapes: readonly Shape[],
  round: number,
  effort: Effort,
): Promise<readonly Cell[]> {
  const cells: Cell[] = []
  const peers: Peer[] = []
  try {
    peers.push(await startMilterChain(directory, chain, scanners))
    for (const [name, engines] of Object.entries(ours)) {
      peers.push(
        engines.length === 0
          ? await startPostern(directory, name, LOCAL)
          : await startPosternEngines(directory, name, LOCAL, engines),
      )
    }
    if (scanners.includes('clamd')) for (const peer of peers) await mustStop(peer)
    for (const peer of peers) await flood(peer.port, 4, 400, 4_096)
    for (const shape of shapes) {
      for (const peer of peers) cells.push(await measured(peer, shape, round, effort))
    }
  } finally {
    for (const peer of peers) await peer.stop()
  }
  return cells
}

/** A chain that does not ask its scanner would be quick. @throws when what it knows gets through */
async function mustStop({ name, port, sink }: Peer): Promise<void> {
  const before = sink?.count() ?? 0
  const wire = await Wire.connect({ port })
  const say = async (text: string): Promise<string> => {
    wire.send(`${text}\r\n`)
    return (await wire.reply(30_000)).lines.join(' ')
  }
  await wire.reply(30_000)
  await say('EHLO load.test')
  await say('MAIL FROM:<load@sender.test>')
  await say(`RCPT TO:<someone@${DOMAIN}>`)
  await say('DATA')
  const answer = await say(`From: load@sender.test\r\nSubject: x\r\n\r\n${MARKER}\r\n.`)
  wire.shut()
  // Refused or held; mails behind it get through.
  const behind = 20
  await flood(port, 1, behind, 4_096)
  const isThere = await sink?.has(before + behind, 30_000)
  if (isThere !== true || sink?.count() !== before + behind)
    throw new Error(`${name} does not stop what clamd knows: ${answer}`)
}

function judge({ chain, ours }: Match, cells: readonly Cell[], shapes: readonly Shape[]): void {
  atMost(
    `scans in which not every mail arrived, beside ${chain}`,
    cells.filter((cell) => cell.problem !== null).length,
    0,
  )
  for (const shape of shapes) {
    const name = shapeName(shape)
    const ratio = (peer: string, of: (cell: Cell, other: Cell) => number): number =>
      median(against(cells, peer, name, of, chain))
    if (OURS in ours) {
      atLeast(
        `mails a CPU second against ${chain}, ${name}`,
        ratio(OURS, (cell, other) => other.cpuMs / cell.cpuMs),
        shape.sizeBytes < 10_000 ? 4 : 2,
      )
    }
    for (const peer of Object.keys(ours))
      atLeast(
        `mails/s against ${chain}, ${name}, ${peer}`,
        ratio(peer, (cell, other) => cell.perS / other.perS),
        1,
      )
  }
}
