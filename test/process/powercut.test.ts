/**
 * Power cuts: the data directory lies on an ext4 in a file, nothing is flushed but what the node
 * syncs, and at a random instant the file is copied as the disk would be. A node started on the copy
 * must hold every mail that got 250. The same with syncing switched off must lose mail.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { SeededRandom } from '../../src/base/random.ts'
import { COUNTS, PATIENCE_MS, SEED } from './counts.ts'
import { type Account, accountLine, Load, settleAccount } from './ledger.ts'
import {
  copyDisk,
  endRest,
  flusherOff,
  mountCopy,
  mountNew,
  onLoops,
  stopTree,
  unmount,
} from './loop.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'

const clock = new SystemClock()
/**
 * One cut. During the load the next hop defers everything, so that each acked mail is on the disk
 * alone; afterwards it takes everything, from the node on the copy.
 */
async function cut(seed: number, environment: Readonly<Record<string, string>>): Promise<Account> {
  const random = new SeededRandom(seed)
  const dir = mkdtempSync(join(tmpdir(), 'postern-proof-cut-'))
  const copy = join(dir, 'copy')
  const sink = new Sink({ sender: () => '451 4.3.0 Not before the cut' })
  let node: Postern | null = null
  let second: Postern | null = null
  let load: Load | null = null
  try {
    await mountNew(dir, '400M')
    node = await Postern.start({ data: join(dir, 'disk/data'), environment })
    await node.addDomain('example.com', sink.nextHop)
    load = new Load({
      port: node.smtpPort,
      domain: 'example.com',
      connections: 8,
      seed,
      sizes: [600, 4_000, 20_000, 200_000],
    })
    await load.ledger.untilAcked(60 + random.below(200), 30_000)
    await pause(clock, random.below(30))
    // Stopped first, copied then: what a reply promised before the stop must be in the copy.
    const tree = stopTree(node.pid)
    await copyDisk(dir)
    const { ledger } = load
    const acked = ledger.acked
    await node.kill()
    endRest(tree)
    await load.stop()
    await mountCopy(dir)
    sink.manners = {}
    second = await Postern.start({ data: join(copy, 'data'), readyMs: 30_000 }).catch(
      (error: unknown) => {
        // Without syncing nothing of the directory need be readable; with it, it must be.
        if (environment['POSTERN_TEST_NO_SYNC'] === undefined) throw error
        return null
      },
    )
    if (second !== null) {
      // Without syncing the domain may be lost as well.
      await second.addDomain('example.com', sink.nextHop)
      await second.command('queue', 'retry')
      await second.queueEmpty(30_000)
    }
    expect(ledger.acked).toBe(acked)
    return settleAccount(ledger, sink.arrivals)
  } finally {
    await load?.stop()
    await node?.dispose()
    await second?.dispose()
    sink.stop()
    await unmount(dir)
    rmSync(dir, { recursive: true, force: true })
  }
}

onLoops(`${COUNTS.powerCuts} power cuts under load, seed ${SEED}`, () => {
  let flusherOn = () => {}
  beforeAll(async () => {
    flusherOn = await flusherOff()
  }, 90_000)
  afterAll(() => flusherOn())

  for (let n = 0; n < COUNTS.powerCuts; n += 1) {
    test(
      `every mail that got 250 survives cut ${n + 1}`,
      async () => {
        const account = await cut(SEED + n, {})
        console.info(`cut ${n + 1}: ${accountLine(account)}`)
        expect(account.acked).toBeGreaterThan(30)
        expect(account).toMatchObject({ lost: [], phantom: [], corrupt: [], duplicates: [] })
      },
      PATIENCE_MS,
    )
  }

  test(
    'the same with syncing switched off loses mail, or this proves nothing',
    async () => {
      const account = await cut(SEED + 1_000, { POSTERN_TEST_NO_SYNC: '1' })
      console.info(`without syncing: ${accountLine(account)}`)
      expect(account.lost.length).toBeGreaterThan(0)
    },
    PATIENCE_MS,
  )
})
