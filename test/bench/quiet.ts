/** What a quiet cluster costs each of its nodes, by how many there are: real hosts, then simulated. */
import { dirname, join } from 'node:path'
import { canMakeNetworks, Net } from '../hosts/net.ts'
import { quiet } from '../hosts/quiet.ts'
import { atMost } from './bars.ts'
import { table } from './numbers.ts'

const HOSTS = [2, 3, 5, 10]
const SIMULATED = [3, 10, 30, 100]
const RUN = join(dirname(import.meta.dir), 'sim/run.ts')

/** Prints both tables and judges the bars. */
export async function quietRun(isQuick: boolean): Promise<void> {
  if (canMakeNetworks()) await onHosts(isQuick)
  else process.stdout.write('left out: this machine makes no network namespaces\n')
  process.stdout.write('\n')
  for (const nodes of isQuick ? SIMULATED.slice(0, 2) : SIMULATED) {
    const ran = await Bun.$`${process.execPath} ${RUN} --cost ${nodes}`.quiet().nothrow()
    process.stdout.write(`simulated, ${nodes} nodes: ${ran.stdout.toString().trim()}\n`)
  }
}

async function onHosts(isQuick: boolean): Promise<void> {
  const net = new Net(Math.max(...HOSTS))
  const rows: string[][] = []
  try {
    for (const count of HOSTS) {
      const hosts = Array.from({ length: count }, (_, at) => at + 1)
      const { bytesPerS, cpuShare } = await quiet(net, hosts, isQuick ? 10_000 : 30_000)
      rows.push([String(count), bytesPerS.toFixed(0), (cpuShare * 100).toFixed(2)])
      atMost(`bytes a second of one of ${count} quiet nodes`, bytesPerS, 2_048)
      atMost(`CPU of one of ${count} quiet nodes, % of a core`, cpuShare * 100, 1)
    }
  } finally {
    net.dispose()
  }
  process.stdout.write(
    table(['nodes on hosts', 'B/s a node, in and out', 'CPU of a node, % of a core'], rows),
  )
}
