/** The inspectors in order of cost, and the run of one message through them. gtube.ts is the one to copy. */
import { messageOf } from '../../base/errors.ts'
import { HEADER_BYTES_MAX } from '../../base/limits.ts'
import type { DnsAnswers } from '../../base/names.ts'
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
import { type Answer, joinInsight, joinOnward, PARSE, type Seen } from './answers.ts'
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
import { signing } from './signing.ts'
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
  signing,
]

/** What one look at a message needs beside its bytes. */
export type Task = {
  readonly session: SessionFacts
  readonly config: InspectConfig
  readonly answers: DnsAnswers
  readonly model: Model | null
}

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
