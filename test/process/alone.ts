/** One mail in a fresh inspector that does nothing else: what it finds and what it takes. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '../../src/base/clock.ts'
import { Observer } from '../../src/base/observe.ts'
import { PLAIN_CONFIG } from '../../src/mail/inspect/look.ts'
import { createInspectors } from '../../src/mail/inspect/pool.ts'
import type { Body } from '../../src/message/body.ts'
import { attached } from '../attached.ts'
import { sevenOfMany } from '../bombs.ts'
import { ENVELOPE } from '../look.ts'
import { posternCommand } from '../real.ts'
import { cpuMsOf, memoryOf, resetPeak } from './proc.ts'

export type Alone = {
  readonly rules: readonly string[]
  /** Peak of resident bytes above those before, the mail itself included. */
  readonly grownBytes: number
  readonly cpuMs: number
}

/** @throws Error when an inspector did not answer, or 7-Zip is missing */
export async function alone(mail: Buffer): Promise<Alone> {
  const clock = new SystemClock()
  const spoolDir = mkdtempSync(join(tmpdir(), 'postern-alone-'))
  const path = join(spoolDir, 'mail')
  writeFileSync(path, mail)
  const before = new Set(childrenOf(process.pid))
  const pool = createInspectors(
    { command: posternCommand('inspector'), processes: 1, spoolDir },
    { clock, observer: new Observer(clock, () => {}) },
  )
  const inspect = async (body: Body): Promise<readonly string[]> => {
    const { findings, unknowns } = await pool.inspect({
      envelope: ENVELOPE,
      body,
      inspectors: ['attachments', 'eicar', 'documents', 'yara'],
      config: PLAIN_CONFIG,
      clientName: null,
      sha256: null,
      budgetMs: 30_000,
    })
    if (unknowns.length > 0) throw new Error(JSON.stringify(unknowns))
    return findings.map(({ rule }) => rule)
  }
  try {
    // The program of 7-Zip is loaded once, at the first archive: that is no growth of this one.
    await inspect({ kind: 'memory', bytes: attached('a.7z', sevenOfMany(1)) })
    const child = Number(childrenOf(process.pid).find((pid) => !before.has(pid)))
    resetPeak(child)
    const { rssBytes } = memoryOf(child)
    const cpuMs = cpuMsOf(child)
    const rules = await inspect({
      kind: 'extents',
      extents: [{ path, offset: 0, length: mail.length }],
      sizeBytes: mail.length,
    })
    const grownBytes = memoryOf(child).peakBytes - rssBytes
    return { rules, grownBytes, cpuMs: cpuMsOf(child) - cpuMs }
  } finally {
    await pool.close()
    rmSync(spoolDir, { recursive: true })
  }
}

/** Processes that `parent` started and that live. */
export function childrenOf(parent: number): readonly string[] {
  return readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim().split(' ')
}
