/** What looking into mail costs: all local inspectors beside Postfix with Rspamd as its milter, in turn. */
import { INSPECTOR_NAMES } from '../../src/config/schema.ts'
import { atLeast, atMost } from './bars.ts'
import { flood } from './load.ts'
import { median } from './numbers.ts'
import { type Peer, startPostern, startPosternRspamd, startPostfixRspamd } from './peers.ts'
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
const CHAIN = 'postfix-rspamd'
const OURS = 'postern, all local'
const BOTH = 'postern, all local, rspamd'

export async function scanRun(directory: string, effort: Effort): Promise<void> {
  if (Bun.which('rspamd') === null) {
    process.stdout.write('left out: the package rspamd is missing\n')
    return
  }
  const shapes = [4_096, 51_200].flatMap((sizeBytes) =>
    [10, 100].map((connections): Shape => ({ sizeBytes, connections })),
  )
  const cells: Cell[] = []
  for (let round = 1; round <= effort.rounds; round += 1) {
    const peers: Peer[] = []
    try {
      peers.push(await startPostfixRspamd(directory))
      peers.push(await startPostern(directory, OURS, LOCAL))
      peers.push(await startPosternRspamd(directory, BOTH, LOCAL))
      for (const peer of peers) await flood(peer.port, 4, 400, 4_096)
      for (const shape of shapes) {
        for (const peer of peers) cells.push(await measured(peer, shape, round, effort))
      }
    } finally {
      for (const peer of peers) await peer.stop()
    }
  }
  process.stdout.write(`\n${tablesOf(cells, CHAIN)}`)
  judge(cells, shapes)
}

function judge(cells: readonly Cell[], shapes: readonly Shape[]): void {
  atMost(
    'scans in which not every mail arrived',
    cells.filter((cell) => cell.problem !== null).length,
    0,
  )
  for (const shape of shapes) {
    const name = shapeName(shape)
    const ratio = (peer: string, of: (cell: Cell, chain: Cell) => number): number =>
      median(against(cells, peer, name, of, CHAIN))
    atLeast(
      `mails a CPU second against ${CHAIN}, ${name}`,
      ratio(OURS, (cell, chain) => chain.cpuMs / cell.cpuMs),
      shape.sizeBytes < 10_000 ? 4 : 2,
    )
    for (const peer of [OURS, BOTH])
      atLeast(
        `mails/s against ${CHAIN}, ${name}, ${peer}`,
        ratio(peer, (cell, chain) => cell.perS / chain.perS),
        1,
      )
  }
}
