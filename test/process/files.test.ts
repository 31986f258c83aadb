/** Archives, documents and rules behind the walls of a real inspector: what it loads is in the binary. */
import { afterAll, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { SystemClock } from '../../src/base/clock.ts'
import { Observer } from '../../src/base/observe.ts'
import type { InspectionJob } from '../../src/mail/inspect/contract.ts'
import { PLAIN_CONFIG } from '../../src/mail/inspect/look.ts'
import { createInspectors } from '../../src/mail/inspect/pool.ts'
import { checkYara } from '../../src/mail/inspect/yara-check.ts'
import { KINDS } from '../archive-kinds.ts'
import { attached } from '../attached.ts'
import { BOMBS_OF_MANY, zipOfMany } from '../bombs.ts'
import { EICAR, HOSTILE } from '../document-samples.ts'
import { ENVELOPE } from '../look.ts'
import { needs, posternCommand } from '../real.ts'
import { alone, childrenOf } from './alone.ts'

const spoolDir = mkdtempSync(join(tmpdir(), 'postern-files-'))
const clock = new SystemClock()
const pool = createInspectors(
  { command: posternCommand('inspector'), processes: 1, spoolDir },
  { clock, observer: new Observer(clock, () => {}) },
)
afterAll(async () => {
  await pool.close()
  rmSync(spoolDir, { recursive: true })
})

const source = 'rule Words { meta: score = 9 strings: $a = "needle" condition: $a }'
const config = {
  ...PLAIN_CONFIG,
  version: 1,
  detection: { ...PLAIN_CONFIG.detection, yara: { own: source } },
}

async function inspect(name: string, content: Uint8Array) {
  const job: InspectionJob = {
    envelope: ENVELOPE,
    body: { kind: 'memory', bytes: attached(name, content) },
    inspectors: ['attachments', 'eicar', 'documents', 'yara'],
    config,
    clientName: null,
    sha256: null,
    budgetMs: 20_000,
  }
  const { findings, unknowns } = await pool.inspect(job)
  expect(unknowns).toEqual([])
  return findings.map(({ rule }) => rule)
}

test('a RAR in a gzip is opened', async () => {
  const rar = KINDS['rar5']?.('eicar.txt', EICAR) ?? Buffer.of()
  expect(await inspect('a.gz', gzipSync(rar))).toContain('EICAR')
}, 30_000)

test('a stream that is cut is unreadable', async () => {
  const rar = KINDS['rar4']?.('eicar.txt', EICAR) ?? Buffer.of()
  expect(await inspect('a.rar', rar.subarray(0, rar.length - 60))).toContain('ARCHIVE_UNREADABLE')
}, 30_000)

test('a document with macros is read', async () => {
  const sample = HOSTILE['macros of Word that run']
  expect(await inspect('a.docm', sample?.content ?? Buffer.of())).toContain('OFFICE_MACROS_RUN')
}, 30_000)

test('rules of the operator are run', async () => {
  const needle = gzipSync('a needle in a haystack')
  expect(await inspect('a.gz', needle)).toContain('YARA_WORDS')
}, 30_000)

test('a child that has opened many archives stays below 250 MB', async () => {
  const bomb = gzipSync(Buffer.alloc(90_000_000))
  for (let round = 0; round < 10; round += 1)
    expect(await inspect('a.gz', bomb)).toContain('ARCHIVE_LIMIT')
  expect(pool.health().replaced).toBe(0)
  const [pid] = childrenOf(process.pid)
  const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  expect(Number(peak) / 1024).toBeLessThan(250)
}, 60_000)

needs('7zip')('archives of very many files', () => {
  for (const [what, { name, make }] of Object.entries(BOMBS_OF_MANY)) {
    test(`${what}: refused, and at most 64 MB more than the mail itself`, async () => {
      const mail = attached(name, make())
      const { rules, grownBytes } = await alone(mail)
      expect(rules).toContain('ARCHIVE_LIMIT')
      expect(grownBytes - mail.length).toBeLessThan(64 * 1024 * 1024)
    }, 60_000)
  }

  test('one larger than mails are by default: what it is packed in is decoded once', async () => {
    const zip = zipOfMany(1_000_000)
    const mail = attached('a.zip', zip)
    const { rules, grownBytes } = await alone(mail)
    expect(rules).toContain('ARCHIVE_LIMIT')
    expect(grownBytes - mail.length - zip.length).toBeLessThan(64 * 1024 * 1024)
  }, 60_000)
})

test('rules are tried in a process of their own, and refused with a reason', async () => {
  const command = posternCommand('inspector')
  expect(await checkYara(command, clock, source)).toEqual([])
  expect(await checkYara(command, clock, 'rule {')).toEqual(['Line 1: syntax error.'])
  const slow = 'rule A { strings: $a = /(a+)+b/ condition: $a }'
  expect((await checkYara(command, clock, slow)).join()).toContain('slow')
  const file = 'include "/etc/passwd"\nrule A { condition: true }'
  expect((await checkYara(command, clock, file)).join()).toContain('include')
}, 30_000)
