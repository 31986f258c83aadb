/** A disk that fills up or fails: refusals in time, nothing acked is lost, and it recovers by itself. */
import { expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { hostLacks, needs } from '../real.ts'
import { accountLine, Ledger, Load, settleAccount } from './ledger.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'

const clock = new SystemClock()
const TEST_MS = 120_000
const FULL_BYTES = 400 * 1_048_576

const small = (await canMount()) ? needs('root') : hostLacks('tmpfs mounts')
small('a data directory on a small disk', () => {
  test(
    'is refused with 452 before it is full, loses nothing, and recovers by itself',
    async () => {
      const dir = mkdtempSync(join(tmpdir(), 'postern-proof-full-'))
      const sink = new Sink({ sender: () => '451 4.3.0 Not yet' })
      let node: Postern | null = null
      try {
        await Bun.$`mount -t tmpfs -o size=${FULL_BYTES} tmpfs ${dir}`.quiet()
        node = await Postern.start({ data: join(dir, 'data') })
        await node.addDomain('example.com', sink.nextHop)
        const ledger = new Ledger()
        let mostFull = 0
        const refusals: string[] = []
        for (let round = 0; round < 60 && refusals.length < 20; round += 1) {
          const load = new Load(
            {
              port: node.smtpPort,
              domain: 'example.com',
              connections: 4,
              seed: 10_000 + round,
              sizes: [1_000_000, 3_000_000],
              mails: 12,
            },
            ledger,
          )
          await load.finished()
          const { blocks, bavail } = statfsSync(dir)
          mostFull = Math.max(mostFull, 1 - bavail / blocks)
          refusals.splice(
            0,
            refusals.length,
            ...[...ledger.entries.values()]
              .filter(({ fate }) => fate === 'refused')
              .map(({ reply }) => reply),
          )
        }
        console.info(
          `full disk: ${ledger.acked} acked, ${refusals.length} refused, at most ${(mostFull * 100).toFixed(1)} % used; first refusal: ${refusals[0]}`,
        )
        expect(refusals.length).toBeGreaterThanOrEqual(20)
        expect(refusals.filter((reply) => !reply.startsWith('452 4.3.1'))).toEqual([])
        // By the rule, not by a write that failed: the disk still had room for what was under way.
        expect(mostFull).toBeLessThan(1)
        expect(node.log()).not.toMatch(/"event":"(?:spool|store)\.failed"|ENOSPC|SQLITE_FULL/)
        expect(ledger.indeterminate).toBe(0)
        // The node still answers and may be told things.
        expect((await node.status()).queue.messages).toBe(ledger.acked)
        await node.set('queue.first', '1')

        sink.manners = {}
        expect((await node.command('queue', 'retry')).code).toBe(0)
        expect(await node.queueEmpty(60_000)).toBeTrue()
        const emptiedMs = clock.monoMs()
        const again = new Load({
          port: node.smtpPort,
          domain: 'example.com',
          connections: 1,
          seed: 11_000,
          sizes: [1_000_000],
          mails: 1,
        })
        await again.finished()
        for (let n = 1; again.ledger.acked + ledger.acked === ledger.acked && n < 20; n += 1) {
          const next = new Load(
            {
              port: node.smtpPort,
              domain: 'example.com',
              connections: 1,
              seed: 11_000 + n,
              sizes: [1_000_000],
              mails: 1,
            },
            again.ledger,
          )
          await next.finished()
          await pause(clock, 500)
        }
        const recoveredMs = clock.monoMs() - emptiedMs
        console.info(
          `full disk: takes mail again ${Math.round(recoveredMs)} ms after the queue was empty`,
        )
        expect(again.ledger.acked).toBeGreaterThan(0)
        expect(recoveredMs).toBeLessThan(10_000)
        expect(settleAccount(ledger, sink.arrivals)).toMatchObject({
          lost: [],
          phantom: [],
          corrupt: [],
          duplicates: [],
        })
      } finally {
        await node?.dispose()
        sink.stop()
        await Bun.$`umount ${dir}`.quiet().nothrow()
        rmSync(dir, { recursive: true, force: true })
      }
    },
    TEST_MS,
  )

  test(
    'a disk that another program filled to the last block loses nothing',
    async () => {
      const dir = mkdtempSync(join(tmpdir(), 'postern-proof-full-'))
      const sink = new Sink({ sender: () => '451 4.3.0 Not yet' })
      let node: Postern | null = null
      try {
        await Bun.$`mount -t tmpfs -o size=${FULL_BYTES} tmpfs ${dir}`.quiet()
        node = await Postern.start({ data: join(dir, 'data') })
        await node.addDomain('example.com', sink.nextHop)
        const load = new Load({
          port: node.smtpPort,
          domain: 'example.com',
          connections: 4,
          seed: 12_000,
          sizes: [4_000, 300_000],
        })
        await load.ledger.untilAcked(50, 30_000)
        const { bavail, bsize } = statfsSync(dir)
        try {
          writeFileSync(join(dir, 'foreign'), Buffer.alloc(bavail * bsize))
        } catch {
          // ENOSPC: then it is full, as it should be.
        }
        const ackedAt = load.ledger.refused
        for (let n = 0; n < 200 && load.ledger.refused < ackedAt + 20; n += 1)
          await pause(clock, 25)
        await load.stop()
        expect(load.ledger.refused).toBeGreaterThanOrEqual(ackedAt + 20)
        // A full disk drains: marks have room of their own.
        sink.manners = {}
        expect((await node.command('queue', 'retry')).code).toBe(0)
        expect(await node.queueEmpty(60_000)).toBeTrue()
        rmSync(join(dir, 'foreign'), { force: true })
        const account = settleAccount(load.ledger, sink.arrivals)
        console.info(`disk filled by another: ${accountLine(account)}`)
        expect(account).toMatchObject({ lost: [], phantom: [], corrupt: [], duplicates: [] })
      } finally {
        await node?.dispose()
        sink.stop()
        await Bun.$`umount ${dir}`.quiet().nothrow()
        rmSync(dir, { recursive: true, force: true })
      }
    },
    TEST_MS,
  )
})

needs('strace')('a disk whose syncs fail', () => {
  test(
    'never gives another 250, and what was acked before arrives',
    async () => {
      const dir = mkdtempSync(join(tmpdir(), 'postern-proof-eio-'))
      const sink = new Sink({ sender: () => '451 4.3.0 Not yet' })
      const data = join(dir, 'data')
      const node = await Postern.start({ data })
      const load = new Load({
        port: node.smtpPort,
        domain: 'example.com',
        connections: 6,
        seed: 13_000,
        sizes: [600, 4_000],
        replyMs: 10_000,
      })
      try {
        await node.addDomain('example.com', sink.nextHop)
        await load.ledger.untilAcked(40, 30_000)
        const trace = join(dir, 'trace')
        const strace = Bun.spawn(
          [
            '/usr/bin/strace',
            '-f',
            '-ttt',
            '-o',
            trace,
            '-e',
            'trace=fdatasync,fsync',
            '-e',
            'inject=fdatasync,fsync:error=EIO',
            '-p',
            String(node.pid),
          ],
          { stdout: 'ignore', stderr: 'ignore', stdin: 'ignore' },
        )
        const before = load.ledger.acked
        for (let n = 0; n < 400 && !failed(trace); n += 1) await pause(clock, 25)
        expect(failed(trace)).toBeTrue()
        // From the first failure on, no message whose dot was sent after it may be acked.
        const failedWall = firstFailureWallMs(trace)
        const failedMono = clock.monoMs() - (clock.wallMs() - failedWall)
        await pause(clock, 2_000)
        await load.stop()
        const late = [...load.ledger.entries.values()].filter(
          (entry) => entry.fate === 'acked' && entry.dotMs !== null && entry.dotMs > failedMono + 5,
        )
        console.info(
          `failing syncs: ${before} acked before, ${load.ledger.acked} in all, ${late.length} acked after the first failure, ${load.ledger.refused} refused, ${load.ledger.indeterminate} without reply; the node ${node.running ? 'lives' : 'ended'}`,
        )
        expect(late.map(({ token, reply }) => `${token} ${reply}`)).toEqual([])
        strace.kill('SIGKILL')
        await strace.exited
        await node.kill()
        sink.manners = {}
        await node.begin()
        await node.command('queue', 'retry')
        expect(await node.queueEmpty(30_000)).toBeTrue()
        expect(settleAccount(load.ledger, sink.arrivals)).toMatchObject({
          lost: [],
          phantom: [],
          corrupt: [],
        })
      } finally {
        await load.stop()
        await node.dispose()
        sink.stop()
        rmSync(dir, { recursive: true, force: true })
      }
    },
    TEST_MS,
  )
})

/** True where nothing but root is missing: a container may refuse root its mounts. */
async function canMount(): Promise<boolean> {
  if (process.getuid?.() !== 0) return true
  const dir = mkdtempSync(join(tmpdir(), 'postern-proof-full-'))
  const { exitCode } = await Bun.$`mount -t tmpfs -o size=1M tmpfs ${dir}`.quiet().nothrow()
  if (exitCode === 0) await Bun.$`umount ${dir}`.quiet()
  rmSync(dir, { recursive: true, force: true })
  return exitCode === 0
}

function failed(trace: string): boolean {
  try {
    return readFileSync(trace, 'latin1').includes('EIO')
  } catch {
    return false
  }
}

function firstFailureWallMs(trace: string): number {
  const line = readFileSync(trace, 'latin1')
    .split('\n')
    .find((text) => text.includes('EIO'))
  return Number(/(\d+\.\d+)/.exec(line ?? '')?.[1]) * 1_000
}
