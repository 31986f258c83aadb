/** The inspectors in order of cost, and the run of one message through them. gtube.ts is the one to copy. */
import { messageOf } from '../../base/errors.ts'
import { HEADER_BYTES_MAX } from '../../base/limits.ts'
import type { DnsAnswers, DnsQuestion } from '../../base/names.ts'
import { addressesIn } from '../../message/address.ts'
import { decodeText, fieldValue, fieldValues, plainLine } from '../../message/header.ts'
import { Mail, MIME_BOUNDS } from '../../message/mime.ts'
import {
  type Finding,
  type Insight,
  type MessageFacts,
  NO_INSIGHT,
  NOTHING_ONWARD,
  type Onward,
} from '../../message/verdict.ts'
import { attachments } from './attachments.ts'
import { bayes } from './bayes.ts'
import { blocklists } from './blocklists.ts'
import { campaign } from './campaign.ts'
import { documents } from './documents.ts'
import { eicar } from './eicar.ts'
import { gtube } from './gtube.ts'
import { headers } from './headers.ts'
import { impersonation } from './impersonation.ts'
import { links } from './links.ts'
import { type InspectConfig, type Inspector, Known, type Look, type SessionFacts } from './look.ts'
import type { Model } from './model.ts'
import { parseFindings } from './parse.ts'
import { rules } from './rules.ts'
import { sender } from './sender.ts'
import { text } from './text.ts'
import { yara } from './yara.ts'

/** Cheap ones first: what they find is known when a dear one overruns. In the order of the schema. */
export const INSPECTORS: readonly Inspector[] = [
  gtube,
  headers,
  impersonation,
  text,
  links,
  bayes,
  campaign,
  rules,
  attachments,
  eicar,
  documents,
  yara,
  sender,
  blocklists,
]

/** The answer of one inspector; `parse` stands for the walk that all of them share. */
export type Answer =
  | { readonly inspector: string; readonly findings: readonly Finding[] }
  | { readonly inspector: string; readonly cause: string }
  /** It looks again when these are answered. */
  | { readonly inspector: string; readonly questions: readonly DnsQuestion[] }

/** What is known of a message at the end of one look at it. */
export type Seen = {
  readonly facts: MessageFacts
  readonly insight: Insight
  readonly onward: Onward
}

/** What one look at a message needs beside its bytes. */
export type Task = {
  readonly session: SessionFacts
  readonly config: InspectConfig
  readonly answers: DnsAnswers
  readonly model: Model | null
}

/** The name under which the shared walk reports; not a name of the settings. */
export const PARSE = 'parse'

/**
 * Runs the named inspectors over one message, in the order of INSPECTORS. `tell` gets each
 * answer as soon as it is there. What throws is an answer with a cause: unknown, not clean.
 * A promise only when an inspector gives one: a turn of the loop costs more than most of them.
 */
export function inspectMail(
  raw: Uint8Array,
  task: Task,
  names: readonly string[],
  tell: (answer: Answer) => void,
): Seen | Promise<Seen> {
  const mail = new Mail(raw, { ...MIME_BOUNDS, headerBytesMax: HEADER_BYTES_MAX })
  const found = parseFindings(mail)
  if (found.length > 0) tell({ inspector: PARSE, findings: found })
  for (const name of names) {
    if (INSPECTORS.every((inspector) => inspector.name !== name)) {
      tell({ inspector: name, cause: 'no inspector has this name' })
    }
  }
  const wanted = INSPECTORS.filter(({ name }) => names.includes(name))
  const insight = { ...NO_INSIGHT, tree: mail.tree }
  const seen: Seen = { facts: factsOf(mail), insight, onward: NOTHING_ONWARD }
  return lookOn(wanted, { mail, task, tell }, seen)
}

type Run = {
  readonly mail: Mail
  readonly task: Task
  readonly tell: (answer: Answer) => void
}

function lookOn(inspectors: readonly Inspector[], run: Run, before: Seen): Seen | Promise<Seen> {
  let seen = before
  for (const [index, inspector] of inspectors.entries()) {
    const names = new Known(run.task.answers)
    let insight: Partial<Insight> = {}
    let onward: Partial<Onward> = {}
    const end = (answer: Answer): void => {
      run.tell(answer)
      if (!('findings' in answer)) return
      seen = {
        facts: seen.facts,
        insight: joinInsight(seen.insight, insight),
        onward: joinOnward(seen.onward, onward),
      }
    }
    const answer = answerOf(inspector, {
      mail: run.mail,
      ...run.task,
      names,
      note: (more) => {
        insight = joinInsight({ ...NO_INSIGHT, ...insight }, more)
      },
      change: (more) => {
        onward = joinOnward({ ...NOTHING_ONWARD, ...onward }, more)
      },
    })
    if (answer instanceof Promise) {
      return answer.then((late) => {
        end(late)
        return lookOn(inspectors.slice(index + 1), run, seen)
      })
    }
    end(answer)
  }
  return seen
}

function answerOf({ name, inspect }: Inspector, look: Look): Answer | Promise<Answer> {
  const said = (findings: readonly Finding[]): Answer => {
    const { questions } = look.names
    return questions.length > 0 ? { inspector: name, questions } : { inspector: name, findings }
  }
  const failed = (error: unknown): Answer => ({
    inspector: name,
    cause: plainLine(messageOf(error), 200),
  })
  try {
    const found = inspect(look)
    return found instanceof Promise ? found.then(said, failed) : said(found)
  } catch (error) {
    return failed(error)
  }
}

/** Bounds of message/verdict. */
const INSIGHT_MAX = { authentication: 20, authenticated: 5, urls: 100, files: 50 } as const
const CUTS_MAX = 100
const TO_SIGN_MAX = 10

/** Lists are joined without doubles, up to their bounds. */
export function joinInsight(insight: Insight, more: Partial<Insight>): Insight {
  return {
    tree: more.tree ?? insight.tree,
    authentication: joined(insight.authentication, more.authentication).slice(
      0,
      INSIGHT_MAX.authentication,
    ),
    authenticated: joined(insight.authenticated, more.authenticated).slice(
      0,
      INSIGHT_MAX.authenticated,
    ),
    urls: joined(insight.urls, more.urls).slice(0, INSIGHT_MAX.urls),
    files: joined(insight.files, more.files).slice(0, INSIGHT_MAX.files),
  }
}

export function joinOnward(onward: Onward, more: Partial<Onward>): Onward {
  return {
    cuts: joined(onward.cuts, more.cuts)
      .toSorted(([a], [b]) => a - b)
      .slice(0, CUTS_MAX),
    fields: onward.fields + (more.fields ?? ''),
    toSign: joined(onward.toSign, more.toSign).slice(0, TO_SIGN_MAX),
  }
}

function joined<Item>(items: readonly Item[], more: readonly Item[] = []): readonly Item[] {
  if (more.length === 0) return items
  const known = new Set(items.map((item) => JSON.stringify(item)))
  return [...items, ...more.filter((item) => !known.has(JSON.stringify(item)))]
}

/** Addresses in From (message/verdict). */
const AUTHORS_MAX = 20
/** Characters of a fact (message/verdict). */
const FACT_CHARS_MAX = 500

function factsOf({ header }: Mail): MessageFacts {
  const fact = (name: string): string | null => {
    const value = fieldValue(header, name)
    return value === null
      ? null
      : plainLine(decodeText(value.slice(0, FACT_CHARS_MAX * 8)), FACT_CHARS_MAX)
  }
  return {
    subject: fact('subject'),
    from: fact('from'),
    messageId: fact('message-id'),
    authors: addressesIn(fieldValues(header, 'from').join(','), AUTHORS_MAX),
  }
}

/**
 * Rules that say one thing in several words, and what they may weigh together. Each group holds
 * a message and never refuses it: attached files, and a structure that readers see differently,
 * come from honest senders too, so a person can look and release.
 */
const GROUPS: readonly { readonly rules: RegExp; readonly scoreMax: number }[] = [
  { rules: /^(?:EICAR$|BAD_ATTACHMENT_|ATTACHMENT_|ARCHIVE_)/, scoreMax: 12 },
  {
    rules: /^(?:MIME_|HEADER_NUL$|HEADER_BARE_CR$|MALFORMED_HEADER$)/,
    scoreMax: 10,
  },
  { rules: /^URL_/, scoreMax: 10 },
  // Who only advertises comes below the tag score: honest shops do that too.
  { rules: /^TEXT_(?:CALL|FORM|INCOME|LOAN|OUTREACH|REMOVE)$/, scoreMax: 5.5 },
]

/** In each group the highest rules count in full, the rest up to what the group may weigh. */
export function capScores(findings: readonly Finding[]): readonly Finding[] {
  return GROUPS.reduce(capGroup, findings)
}

function capGroup(
  findings: readonly Finding[],
  group: (typeof GROUPS)[number],
): readonly Finding[] {
  const members = findings.filter(({ rule, score }) => score > 0 && group.rules.test(rule))
  if (members.reduce((sum, { score }) => sum + score, 0) <= group.scoreMax) return findings
  const scores = new Map<Finding, number>()
  let left = group.scoreMax
  for (const finding of members.toSorted((a, b) => b.score - a.score)) {
    const score = Math.min(finding.score, left)
    scores.set(finding, score)
    left -= score
  }
  return findings.map((finding) => ({ ...finding, score: scores.get(finding) ?? finding.score }))
}
