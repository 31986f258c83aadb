/** What an inspector is given to look at one message, and what it may say. */
import { type DnsAnswer, type DnsAnswers, type DnsQuestion, keyOf } from '../../base/names.ts'
import { type Detection, NO_DETECTION } from '../../config/rules.ts'
import { initialSettings, type Settings } from '../../config/schema.ts'
import type { Mail } from '../../message/mime.ts'
import type { Finding, Insight, Onward } from '../../message/verdict.ts'
import type { Model } from './model.ts'

export type Signer = {
  readonly domain: string
  readonly selector: string
  readonly algorithm: 'rsa' | 'ed25519'
}

/** What SMTP said of the message, as far as inspectors ask for it. */
export type SessionFacts = {
  readonly clientIp: string
  /** Name of the client whose address leads back to it; null: it has none, or nobody asked. */
  readonly clientName: string | null
  readonly greeting: string
  readonly sender: string
  readonly recipients: readonly string[]
  readonly outbound: boolean
  readonly smtpUtf8: boolean
  /** Wall ms at which it came: a signature may have ended by then. Left out: none has. */
  readonly receivedMs?: number
}

/** What is the same for many messages: a child gets it once, and again when it changes. */
export type InspectConfig = {
  /** Grows with each change in this process. */
  readonly version: number
  readonly settings: Settings
  /** Name of this gateway in `Authentication-Results` (RFC 8601 section 2.2): one for all nodes. */
  readonly authority: string
  /** Domains of ours, A-labels. */
  readonly domains: readonly string[]
  readonly detection: Detection
  /** Keys that sign mail of ours, by domain. */
  readonly signing: Readonly<Record<string, readonly Signer[]>>
  /** File of what was learnt; null: nothing was. */
  readonly modelPath: string | null
}

/** Nothing was set: what a gateway without domains looks at mail with. */
export const PLAIN_CONFIG: InspectConfig = {
  version: 0,
  settings: initialSettings(),
  authority: 'postern.invalid',
  domains: [],
  detection: NO_DETECTION,
  signing: {},
  modelPath: null,
}

/** An inspector that asks more names of one message than this cannot answer. */
export const QUESTIONS_MAX = 200

/** The name servers as an inspector sees them: what is not known yet is asked for, then it looks again. */
export class Known {
  readonly questions: DnsQuestion[] = []
  readonly #answers: DnsAnswers
  readonly #asked = new Set<string>()

  constructor(answers: DnsAnswers) {
    this.#answers = answers
  }

  /**
   * Null: not known yet. The inspector goes on as if the name were absent, asks whatever else it
   * would ask, and what it returns is forgotten: it will be called again, with the answer.
   */
  ask(question: DnsQuestion): DnsAnswer | null {
    const key = keyOf(question)
    const answer = this.#answers[key]
    if (answer !== undefined) return answer
    if (!this.#asked.has(key) && this.questions.length < QUESTIONS_MAX) {
      this.#asked.add(key)
      this.questions.push({ name: question.name.toLowerCase(), type: question.type })
    }
    return null
  }
}

export type Look = {
  readonly mail: Mail
  readonly session: SessionFacts
  readonly config: InspectConfig
  readonly names: Known
  /** What was learnt; null: nothing was, or too little. */
  readonly model: Model | null
  /** Adds to what is seen beside findings; lists are joined. */
  note(seen: Partial<Insight>): void
  /** Adds to what changes on the way on. */
  change(onward: Partial<Onward>): void
}

export interface Inspector {
  /** As config/schema `inspect.inspectors` names it. */
  readonly name: string
  /**
   * Looks, never decides and never changes the message. Throws when it cannot answer. Same bytes,
   * same config, same answers of the name servers: same findings in the same order.
   */
  inspect(look: Look): readonly Finding[] | Promise<readonly Finding[]>
}
