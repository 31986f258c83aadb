/** Start to ready, and memory: idle, with a crowd of mails of 1 MB, with one of 50 MB. */
import { pause, SystemClock } from '../../src/base/clock.ts'
import { megabytes, memoryOf, pssOf, resetPeak, treeOf } from '../process/proc.ts'
import { atMost } from './bars.ts'
import { flood } from './load.ts'
import { median, spread, table } from './numbers.ts'
import { startPostern } from './peers.ts'

const clock = new SystemClock()
const MB = 1_048_576

/** Prints the table and judges the bars. */
export async function footprintRun(directory: string, isQuick: boolean): Promise<void> {
  const peer = await startPostern(directory, 'postern', null)
  const { node, sink } = peer
  const startMs = [node.readyMs]
  try {
    for (let n = 1; n < (isQuick ? 3 : 7); n += 1) {
      await node.stop()
      await node.begin()
      peer.group.adopt(node.pid)
      startMs.push(node.readyMs)
    }
    // Idle is after a first mail: everything that loads late is loaded.
    await flood(peer.port, 1, 3, 4_096)
    await pause(clock, 3_000)
    const { rssBytes } = memoryOf(node.pid)
    const tree = treeOf(node.pid)
    const pssBytes = pssOf(tree)

    const growth = async (connections: number, count: number, sizeBytes: number) => {
      resetPeak(node.pid)
      const before = memoryOf(node.pid).rssBytes
      const target = (sink?.count() ?? 0) + count
      const { isWhole } = await flood(peer.port, connections, count, sizeBytes)
      const arrived = isWhole && (await sink?.has(target, 60_000))
      if (arrived !== true) throw new Error('the mails of the memory run did not arrive')
      await pause(clock, 500)
      return memoryOf(node.pid).peakBytes - before
    }
    const large = await growth(1, 1, 49 * MB)
    const crowd = await growth(100, 300, MB)

    process.stdout.write(
      table(
        ['start and memory', ''],
        [
          ['start to ready, ms', spread(startMs)],
          ['main process idle, RSS', megabytes(rssBytes)],
          [`tree of ${tree.length} idle, PSS`, megabytes(pssBytes)],
          ['grown by one mail of 49 MB', megabytes(large)],
          ['grown by 100 connections with 1 MB each', megabytes(crowd)],
        ],
      ),
    )
    atMost(`start to ready, ms, median of ${startMs.length}`, median(startMs), 1_000)
    atMost('idle main process, RSS in MB', rssBytes / MB, 80)
    atMost('idle tree, PSS in MB', pssBytes / MB, 200)
    atMost('growth in MB with one mail of 49 MB', large / MB, 20)
    atMost('growth in MB with 100 connections of 1 MB', crowd / MB, 120)
  } finally {
    await peer.stop()
  }
}
