/**
 * Power cuts: the data directory lies on an ext4 in a file, nothing is flushed but what the node
 * syncs, and at a random instant the file is copied as the disk would be. A node started on the copy
 * must hold every mail that got 250. The same with syncing switched off must lose mail.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { SeededRandom } from '../../src/base/random.ts'
import { hostLacks, needs } from '../real.ts'
import { COUNTS, PATIENCE_MS, SEED } from './counts.ts'
import { type Account, accountLine, Load, settleAccount } from './ledger.ts'
import { Postern } from './postern.ts'
import { isAlive, treeOf } from './proc.ts'
import { Sink } from './sink.ts'

const clock = new SystemClock()
const FLUSHER = '/proc/sys/vm/dirty_writeback_centisecs'
/** What Linux starts with. */
const FLUSHER_INITIAL = '500'
const read = () => readFileSync(FLUSHER, 'latin1').trim()

/** Null when loop file systems can be mounted here, else why not. */
async function whyNot(): Promise<string | null> {
  if (process.getuid?.() !== 0) return null
  const dir = mkdtempSync(join(tmpdir(), 'postern-proof-loop-'))
  try {
    await mountNew(dir, '8M')
    await Bun.$`umount ${join(dir, 'disk')}`.quiet()
    writeFileSync(FLUSHER, read())
    return null
  } catch {
    return 'loop mounts'
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

async function mountNew(dir: string, size: string): Promise<void> {
  mkdirSync(join(dir, 'disk'), { recursive: true })
  await Bun.$`truncate -s ${size} ${join(dir, 'disk.img')}`.quiet()
  await Bun.$`mkfs.ext4 -q -F ${join(dir, 'disk.img')}`.quiet()
  await Bun.$`mount -o loop,commit=300 ${join(dir, 'disk.img')} ${join(dir, 'disk')}`.quiet()
}

/**
 * One cut. During the load the next hop defers everything, so that each acked mail is on the disk
 * alone; afterwards it takes everything, from the node on the copy.
 */
async function cut(seed: number, environment: Readonly<Record<string, string>>): Promise<Account> {
  const random = new SeededRandom(seed)
  const dir = mkdtempSync(join(tmpdir(), 'postern-proof-cut-'))
  const copy = join(dir, 'copy')
  mkdirSync(copy)
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
    const tree = treeOf(node.pid)
    for (const pid of tree) process.kill(pid, 'SIGSTOP')
    await Bun.$`cp --sparse=always ${join(dir, 'disk.img')} ${join(dir, 'copy.img')}`.quiet()
    const { ledger } = load
    const acked = ledger.acked
    await node.kill()
    // A stopped child does not notice that its parent is gone, and would hold the file system.
    for (const pid of tree.slice(1)) if (isAlive(pid)) process.kill(pid, 'SIGKILL')
    await load.stop()
    await Bun.$`mount -o loop ${join(dir, 'copy.img')} ${copy}`.quiet()
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
    await Bun.$`umount ${copy} ${join(dir, 'disk')}`.quiet().nothrow()
    rmSync(dir, { recursive: true, force: true })
  }
}

const lacking = await whyNot()
const suite = lacking === null ? needs('root') : hostLacks(lacking)

suite(`${COUNTS.powerCuts} power cuts under load, seed ${SEED}`, () => {
  let flusher = ''
  beforeAll(async () => {
    // The kernel's own flusher would save what the node forgot to sync. It is one for the machine:
    // another run of this suite may hold it off now, or a killed one may have left it off.
    for (let n = 0; n < 120 && read() === '0'; n += 1) await pause(clock, 500)
    flusher = read() === '0' ? FLUSHER_INITIAL : read()
    writeFileSync(FLUSHER, '0')
  }, 90_000)
  afterAll(() => writeFileSync(FLUSHER, flusher))

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
