/** One message under the inspectors of this process: no child, no name server. */
import type { MessageId } from '../src/base/ids.ts'
import type { DnsAnswers } from '../src/base/names.ts'
import type { Answer, Seen } from '../src/mail/inspect/answers.ts'
import { inspectMail } from '../src/mail/inspect/inspectors.ts'
import { type InspectConfig, PLAIN_CONFIG, type SessionFacts } from '../src/mail/inspect/look.ts'
import type { Model } from '../src/mail/inspect/model.ts'
import type { Envelope } from '../src/message/envelope.ts'
import type { Finding } from '../src/message/verdict.ts'

export const SESSION: SessionFacts = {
  clientIp: '192.0.2.1',
  clientName: null,
  greeting: 'mx.sender.example',
  sender: 'a@sender.example',
  recipients: ['b@ours.example'],
  outbound: false,
  smtpUtf8: false,
}

export const ENVELOPE: Envelope = {
  id: '01hzy7c3k0000000000000000a' as MessageId,
  receivedMs: 0,
  clientIp: SESSION.clientIp,
  greeting: SESSION.greeting,
  protocol: 'ESMTP',
  tls: null,
  outbound: false,
  sender: SESSION.sender,
  eightBit: false,
  smtpUtf8: false,
  ret: null,
  envid: null,
  recipients: SESSION.recipients.map((address) => ({ address, notify: null, orcpt: null })),
}

export type Given = {
  readonly session?: Partial<SessionFacts>
  readonly config?: Partial<InspectConfig>
  readonly answers?: DnsAnswers
  readonly model?: Model | null
  readonly inspectors: readonly string[]
}

function run(raw: Uint8Array, given: Given, tell: (answer: Answer) => void): Seen | Promise<Seen> {
  const task = {
    session: { ...SESSION, ...given.session },
    config: { ...PLAIN_CONFIG, ...given.config },
    answers: given.answers ?? {},
    model: given.model ?? null,
  }
  return inspectMail(raw, task, given.inspectors, tell)
}

/** With inspectors that answer at once. */
export function lookAt(raw: Uint8Array, given: Given, tell: (answer: Answer) => void): Seen {
  const seen = run(raw, given, tell)
  if (seen instanceof Promise) throw new Error('an inspector answers later')
  return seen
}

/** All findings and causes, and what was seen beside them. */
export async function lookLong(
  raw: Uint8Array,
  given: Given,
): Promise<Seen & { findings: Finding[]; causes: string[]; questions: string[] }> {
  const findings: Finding[] = []
  const causes: string[] = []
  const questions: string[] = []
  const seen = await run(raw, given, (answer) => {
    if ('findings' in answer) findings.push(...answer.findings)
    else if ('cause' in answer) causes.push(answer.cause)
    else questions.push(...answer.questions.map(({ name, type }) => `${type} ${name}`))
  })
  return { ...seen, findings, causes, questions }
}
