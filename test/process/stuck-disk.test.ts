/** A disk that takes nothing though it has room: read-only after an error, or without inodes (L06). */
import { expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { Ledger, Load, settleAccount } from './ledger.ts'
import { mountNew, onLoops, unmount } from './loop.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'

const clock = new SystemClock()
const TEST_MS = 120_000
const SETTLED_LEAST = 40
/** Few, so that they are soon gone. */
const INODES = 500

/** Mail is acknowledged, then `harm` comes: no loss, no lie, and all is well after `mend`. */
async function survives(
  harm: (disk: string) => Promise<void>,
  mend: (disk: string, node: Postern) => Promise<void>,
): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'postern-proof-stuck-'))
  const disk = join(dir, 'disk')
  const sink = new Sink({ sender: () => '451 4.3.0 Not yet' })
  let node: Postern | null = null
  try {
    await mountNew(dir, '400M', ['-N', String(INODES)])
    node = await Postern.start({ data: join(disk, 'data') })
    await node.addDomain('example.com', sink.nextHop)
    const { smtpPort: port } = node
    const ledger = new Ledger()
    const load = (seed: number, mails?: number): Load =>
      new Load(
        {
          port,
          domain: 'example.com',
          connections: 4,
          sizes: [600, 300_000],
          seed,
          replyMs: 10_000,
          ...(mails === undefined ? {} : { mails }),
        },
        ledger,
      )
    await load(14_000, 40).finished()
    expect(ledger.acked).toBe(40)
    await harm(disk)
    const during = load(14_001)
    const settled = (): number => ledger.acked + ledger.refused + ledger.indeterminate
    const before = settled()
    const isEnough = (): boolean => settled() >= before + SETTLED_LEAST
    for (let tries = 0; tries < 400 && node.running && !isEnough(); tries += 1)
      await pause(clock, 25)
    await during.stop()
    const replies = [...ledger.entries.values()]
      .filter(({ fate, reply }) => fate === 'refused' && /^\d/.test(reply))
      .map(({ reply }) => reply)
    expect(replies.filter((reply) => !reply.startsWith('4'))).toEqual([])
    expect(isEnough() || !node.running).toBe(true)
    console.info(
      `${ledger.acked} acked, ${ledger.refused} refused (${replies[0] ?? 'no reply'}), the node ${node.running ? 'lives' : 'ended'}`,
    )
    await mend(disk, node)
    sink.manners = {}
    if (!node.running) await node.begin()
    await node.command('queue', 'retry')
    const acked = ledger.acked
    // Whether there is room is looked at once a second.
    for (let tries = 0; tries < 40 && ledger.acked < acked + 8; tries += 1) {
      await load(14_002 + tries, 8).finished()
      await pause(clock, 100)
    }
    expect(ledger.acked).toBeGreaterThanOrEqual(acked + 8)
    expect(await node.queueEmpty(30_000)).toBe(true)
    const account = settleAccount(ledger, sink.arrivals)
    expect(account).toMatchObject({ lost: [], phantom: [], corrupt: [] })
  } finally {
    await node?.dispose()
    sink.stop()
    await unmount(dir)
    rmSync(dir, { recursive: true, force: true })
  }
}

onLoops('a disk that takes nothing, though it has room', () => {
  test(
    'a file system that the kernel made read-only after an error',
    () =>
      survives(
        async (disk) => {
          await Bun.$`mount -o remount,abort ${disk}`.quiet()
        },
        async (disk, node) => {
          // Its supervisor starts it anew when a person has mended the disk.
          await node.kill()
          await Bun.$`umount ${disk}`.quiet()
          await Bun.$`e2fsck -fy ${disk}.img`.quiet().nothrow()
          await Bun.$`mount -o loop ${disk}.img ${disk}`.quiet()
        },
      ),
    TEST_MS,
  )

  test(
    'one without an inode left',
    () =>
      survives(
        async (disk) => {
          try {
            for (let count = 0; count < 2 * INODES; count += 1)
              writeFileSync(join(disk, `foreign-${count}`), '')
          } catch {
            // ENOSPC: there is none left.
          }
        },
        async (disk) => {
          await Bun.$`find ${disk} -maxdepth 1 -name 'foreign-*' -delete`.quiet()
        },
      ),
    TEST_MS,
  )
})
