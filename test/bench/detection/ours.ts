/** Our own inspectors, in confined children as a node runs them; what asks name servers is off. */
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { SystemClock } from '../../../src/base/clock.ts'
import type { MessageId } from '../../../src/base/ids.ts'
import { Observer } from '../../../src/base/observe.ts'
import { VERSION } from '../../../src/base/version.ts'
import { INSPECTORS } from '../../../src/mail/inspect/inspectors.ts'
import { PLAIN_CONFIG } from '../../../src/mail/inspect/look.ts'
import { createInspectors } from '../../../src/mail/inspect/pool.ts'
import { sampleOf } from '../../../src/mail/inspect/sample.ts'
import type { Inspection } from '../../../src/message/verdict.ts'
import { LearnedTable } from '../../../src/store/learned-table.ts'
import { posternCommand } from '../../real.ts'
import { eachAtATime, type Peer } from './peers.ts'
import type { Labelled } from './set.ts'

/** Without name servers they are unknown. */
const ASK_NAMES: readonly string[] = ['sender', 'blocklists']
export const LOCAL = INSPECTORS.map(({ name }) => name).filter((name) => !ASK_NAMES.includes(name))

const ENVELOPE = {
  id: '01hzy7c3k0000000000000000a' as MessageId,
  receivedMs: 0,
  clientIp: '192.0.2.1',
  greeting: 'client.example',
  protocol: 'ESMTP',
  tls: null,
  outbound: false,
  sender: '',
  eightBit: true,
  smtpUtf8: false,
  ret: null,
  envid: null,
  recipients: [],
} as const

type Judging = {
  readonly inspect: (raw: Buffer) => Promise<Inspection>
  readonly close: () => Promise<void>
}

/** Two children with the counts in the file `modelPath`; null: nothing was learnt. */
export function judgeWith(
  spoolDir: string,
  modelPath: string | null,
  inspectors: readonly string[] = LOCAL,
): Judging {
  mkdirSync(spoolDir, { recursive: true })
  const clock = new SystemClock()
  const readable = modelPath === null ? [] : [dirname(modelPath)]
  const pool = createInspectors(
    { command: posternCommand('inspector'), processes: 2, spoolDir, readable },
    { clock, observer: new Observer(clock, () => {}) },
  )
  const config = { ...PLAIN_CONFIG, version: 1, modelPath }
  return {
    inspect: (raw) =>
      pool.inspect({
        envelope: ENVELOPE,
        body: { kind: 'memory', bytes: raw },
        inspectors,
        config,
        clientName: null,
        sha256: null,
        budgetMs: 120_000,
      }),
    close: () => pool.close(),
  }
}

/** In `directory`, taught by `train`; samples are made in this process, as a child makes them. */
export async function ours(directory: string, train: readonly Labelled[]): Promise<Peer> {
  const learned = join(directory, 'learned')
  mkdirSync(learned, { recursive: true })
  const table = new LearnedTable(learned, () => 'counts-1')
  for (const { raw, isSpam } of train) {
    const learnt = { sample: sampleOf(raw), label: isSpam ? 'spam' : 'ham', domain: null } as const
    table.count(learnt, 1)
    table.know(learnt)
  }
  if (train.length > 0) table.flush()
  const { inspect, close } = judgeWith(join(directory, 'spool'), table.path)
  return {
    name: 'Postern',
    version: VERSION,
    judge: (mails) =>
      eachAtATime(4, mails, async ({ raw, path }) => {
        const { findings, unknowns } = await inspect(raw)
        const [unknown] = unknowns
        if (unknown !== undefined) {
          throw new Error(`${path}: ${unknown.inspector} is unknown: ${unknown.cause}`)
        }
        const score = findings.reduce((sum, finding) => sum + finding.score, 0)
        return {
          score: Math.round(score * 100) / 100,
          rules: findings.map(({ rule }) => rule),
          weights: findings.map((finding) => finding.score),
        }
      }),
    stop: async () => {
      await close()
      table.close()
    },
  }
}
