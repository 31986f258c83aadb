/** How long inspection takes: all local inspectors over mixed mail, at half of what they can do, and their memory. */
import { join } from 'node:path'
import { zipSync } from 'fflate'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { Observer } from '../../src/base/observe.ts'
import { SeededRandom } from '../../src/base/random.ts'
import { INSPECTOR_NAMES } from '../../src/config/schema.ts'
import type { Inspectors } from '../../src/mail/inspect/contract.ts'
import { PLAIN_CONFIG } from '../../src/mail/inspect/look.ts'
import { createInspectors } from '../../src/mail/inspect/pool.ts'
import { attached } from '../attached.ts'
import { BOMBS_OF_MANY } from '../bombs.ts'
import { ENVELOPE } from '../look.ts'
import { alone } from '../process/alone.ts'
import { memoryOf, treeOf } from '../process/proc.ts'
import { posternCommand } from '../real.ts'
import { atMost } from './bars.ts'
import { labelledMail } from './detection/set.ts'
import { median, percentile, short, table } from './numbers.ts'

const clock = new SystemClock()
const LOCAL = INSPECTOR_NAMES.filter((name) => name !== 'sender' && name !== 'blocklists')
const MB = 1_048_576

/**
 * Of 200: 150 real mails, 40 with a file of 60 to 400 KB (half of them archives), 10 of about 1 MB.
 * The same ones each time.
 */
function mixed(): readonly Buffer[] {
  const random = new SeededRandom(7)
  const real = labelledMail().filter(({ raw }) => raw.length < 60_000)
  const letters = Array.from(
    { length: 150 },
    () => real[random.below(real.length)]?.raw ?? Buffer.of(),
  )
  const attached = Array.from({ length: 40 }, (_, index) => {
    const text = Buffer.from(letters[index % letters.length] ?? '').toString('latin1')
    const bytes = Buffer.concat([
      Buffer.from(text.repeat(Math.ceil((60_000 + random.below(340_000)) / (text.length + 1)))),
    ])
    return index % 2 === 0
      ? withFile('letters.txt', bytes)
      : withFile('letters.zip', Buffer.from(zipSync({ 'letters.txt': bytes }, { level: 6 })))
  })
  const large = Array.from({ length: 10 }, () =>
    withFile('data.bin', Buffer.from(random.bytes(MB * 0.73))),
  )
  return [...letters, ...attached, ...large]
}

function withFile(name: string, bytes: Buffer): Buffer {
  const lines = bytes.toString('base64').match(/.{1,76}/g) ?? []
  return Buffer.from(
    [
      'From: Ann <ann@sender.example>',
      'To: b@ours.example',
      `Subject: ${name}`,
      'Date: Mon, 23 Nov 2026 10:00:00 +0000',
      'Message-ID: <1@sender.example>',
      'MIME-Version: 1.0',
      'Content-Type: multipart/mixed; boundary="b"',
      '',
      '--b',
      'Content-Type: text/plain',
      '',
      'See attached.',
      '--b',
      `Content-Type: application/octet-stream; name="${name}"`,
      'Content-Transfer-Encoding: base64',
      '',
      ...lines,
      '--b--',
      '',
    ].join('\r\n'),
  )
}

export async function inspectRun(directory: string, isQuick: boolean): Promise<void> {
  const pool = createInspectors(
    {
      command: [...posternCommand('inspector')],
      processes: Math.max(1, navigator.hardwareConcurrency),
      spoolDir: join(directory, 'none'),
    },
    { clock, observer: new Observer(clock, () => {}) },
  )
  try {
    const mails = mixed()
    // Everything that loads late is loaded, and the engine has made its code.
    for (const _ of [1, 2]) await closed(pool, mails, 8)
    const perS = await closed(pool, mails, 16)
    const tookMs = await open(pool, mails, perS / 2, isQuick ? 5 : 30)
    const children = treeOf(process.pid).filter((pid) => pid !== process.pid)
    const peaks = children.map((pid) => memoryOf(pid).peakBytes)
    process.stdout.write(
      table(
        [
          'mails/s that it can',
          'at half of that: p50',
          'p90',
          'p99',
          'longest',
          'largest inspector',
        ],
        [
          [
            short(perS),
            ...[
              median(tookMs),
              percentile(tookMs, 0.9),
              percentile(tookMs, 0.99),
              Math.max(...tookMs),
            ].map((ms) => `${short(ms)} ms`),
            `${short(Math.max(...peaks) / MB)} MB`,
          ],
        ],
      ),
    )
    atMost('ms of inspection at half load, p99', percentile(tookMs, 0.99), 50)
    atMost('MB of an inspector, peak', Math.max(...peaks) / MB, 250)
  } finally {
    await pool.close()
  }
  await bombs()
}

/** Archives of very many files, each in an inspector of its own: its time, and its memory above the mail. */
async function bombs(): Promise<void> {
  if (Bun.which('7zz') === null) {
    process.stdout.write('bombs left out: the package 7zip is missing\n')
    return
  }
  for (const [what, { name, make }] of Object.entries(BOMBS_OF_MANY)) {
    const mail = attached(name, make())
    const { cpuMs, grownBytes } = await alone(mail)
    atMost(`ms CPU, ${what}`, cpuMs, 1_000)
    atMost(`MB above the mail, ${what}`, (grownBytes - mail.length) / MB, 64)
  }
}

async function inspect(pool: Inspectors, raw: Buffer): Promise<void> {
  const { unknowns } = await pool.inspect({
    envelope: ENVELOPE,
    body: { kind: 'memory', bytes: raw },
    inspectors: LOCAL,
    config: PLAIN_CONFIG,
    clientName: null,
    sha256: null,
    budgetMs: 30_000,
  })
  if (unknowns.length > 0) throw new Error(`unknown: ${JSON.stringify(unknowns[0])}`)
}

/** All mails once, `wide` at a time; mails a second. */
async function closed(pool: Inspectors, mails: readonly Buffer[], wide: number): Promise<number> {
  const began = clock.monoMs()
  const todo = [...mails]
  const worker = async (): Promise<void> => {
    for (let raw = todo.pop(); raw !== undefined; raw = todo.pop()) await inspect(pool, raw)
  }
  await Promise.all(Array.from({ length: wide }, worker))
  return (mails.length * 1_000) / (clock.monoMs() - began)
}

/** An open loop: each is due at its time, whatever became of the others. Ms from then to its answer. */
async function open(
  pool: Inspectors,
  mails: readonly Buffer[],
  ratePerS: number,
  seconds: number,
): Promise<readonly number[]> {
  const count = Math.ceil(ratePerS * seconds)
  const began = clock.monoMs()
  const random = new SeededRandom(11)
  const all: Promise<number>[] = []
  for (let n = 0; n < count; n += 1) {
    const dueMs = began + (n * 1_000) / ratePerS
    const waitMs = dueMs - clock.monoMs()
    if (waitMs > 0) await pause(clock, waitMs)
    const raw = mails[random.below(mails.length)] ?? Buffer.of()
    all.push(inspect(pool, raw).then(() => clock.monoMs() - dueMs))
  }
  return await Promise.all(all)
}
