/**
 * How a mail says that it was made: program, ids, dates, ways. Programs of spam imitate others and
 * are careless about it. Nothing here is proof, so each weighs little.
 */
import {
  type Field,
  fieldValue,
  fieldValues,
  type Header,
  plainLine,
} from '../../message/header.ts'
import type { Mail } from '../../message/mime.ts'
import type { Finding } from '../../message/verdict.ts'

type Report = (rule: string, score: number, evidence: string) => void

export function makingFindings(mail: Mail): readonly Finding[] {
  const findings: Finding[] = []
  const found: Report = (rule, score, evidence) => {
    findings.push({ rule, score, evidence })
  }
  const { header } = mail
  recipients(header, found)
  ids(header, found)
  relayId(header, found)
  programs(header, found)
  dates(header, found)
  ways(header, found)
  author(header, found)
  fromLists(mail, found)
  return findings
}

function has({ fields }: Header, name: string): boolean {
  return fields.some((field) => field.name === name)
}

function recipients(header: Header, found: Report): void {
  const to = fieldValue(header, 'to')
  if (to === null && !has(header, 'cc') && !has(header, 'bcc') && !has(header, 'resent-to')) {
    found('MISSING_TO', 0.4, 'The message names no recipient.')
  } else if (
    to !== null &&
    /undisclosed|unspecified-?recipients|^<>$|^$/i.test(to) &&
    !has(header, 'cc')
  ) {
    found('TO_UNDISCLOSED', 0.8, 'The message hides its recipients.')
  }
  const author = addressOf(fieldValue(header, 'from') ?? '')
  if (to !== null && author !== '' && addressOf(to) === author && !to.includes(',')) {
    found('TO_IS_FROM', 1, `The message says that ${plainLine(author, 80)} wrote to itself.`)
  }
}

function addressOf(value: string): string {
  return (
    /<([^<>\s]+@[^<>\s]+)>/.exec(value)?.[1] ??
    /[^\s<>",;]+@[^\s<>",;]+/.exec(value)?.[0] ??
    ''
  ).toLowerCase()
}

function ids(header: Header, found: Report): void {
  const id = fieldValue(header, 'message-id')
  if (id === null || id === '') return
  const shown = plainLine(id, 80)
  if (!/^<[^<>@]+@[^<>@]+>$/.test(id)) {
    found('MESSAGE_ID_ODD', 1.5, `The Message-ID has not the form of one: ${shown}.`)
  } else if (/^<[A-Z]{15,}@|@\[?127\./.test(id)) {
    found('MESSAGE_ID_ODD', 0.8, `No mail program makes such a Message-ID: ${shown}.`)
  }
}

/** Sendmail and Postfix add an id in this form where the writer's program made none. */
const SERVER_ID = /^<(?:\d{12}\.[a-zA-Z0-9]{6,}|\d{14}\.[0-9A-Fa-f]{5,})@([^>]+)>$/

function relayId(header: Header, found: Report): void {
  const host = SERVER_ID.exec(fieldValue(header, 'message-id') ?? '')?.[1]?.toLowerCase()
  if (host === undefined) return
  const author = addressOf(fieldValue(header, 'from') ?? '')
  const domain = host.split('.').slice(-2).join('.')
  if (author.endsWith(domain)) return
  const added = fieldValues(header, 'received').some((value) =>
    value.toLowerCase().includes(`by ${host}`),
  )
  if (!added || has(header, 'list-id') || has(header, 'resent-from')) return
  found(
    'MESSAGE_ID_BY_RELAY',
    1.8,
    `The writer's program made no Message-ID: ${plainLine(host, 80)} added one.`,
  )
}

/** A program, and the form of the ids that it makes. */
const FORMS: readonly { readonly name: RegExp; readonly id: RegExp }[] = [
  {
    name: /^Microsoft Outlook Express \d/i,
    id: /^<[0-9a-f]{12}\$[0-9a-f]{8}\$[0-9a-f]{8}@|^<[A-Z0-9]+[\dA-F-]*\.?@|^<(?:OE|BAY|SNT|COL|BLU|DUB|VI1)/i,
  },
  {
    name: /^Microsoft Outlook(?:,| \d|$)/i,
    id: /\$[0-9a-f]{8}\$|^<[A-Z0-9]{20,}|^<[A-Z]{26,}|^<!&!|^<[0-9a-f]{8,}|^<\w+(?:PROD|EURP|NAMP)/i,
  },
  {
    name: /^(?:QUALCOMM )?(?:Windows )?Eudora/i,
    id: /^<[a-z]?[\w.]*\d+\.\d+[\w.]*@|^<[a-z]?\d{6,}[\w.]*@|^<LYRIS/i,
  },
  { name: /^The Bat!/i, id: /^<\d+\.\d{14}@/ },
  { name: /^Mozilla/i, id: /^<[0-9A-F]{8}\.[0-9A-F]{4,8}@/i },
  { name: /^Internet Mail Service/i, id: /^<[0-9A-F]{16,}|@/i },
  { name: /^iPhone Mail|^iPad Mail|^Apple Mail/i, id: /^<[0-9A-F]{8}-[0-9A-F]{4}-/i },
]

/** Programs that are sold to fill the mailboxes of strangers, and what they call themselves. */
const BULK =
  /\b(?:bulk|blast(?:er)?|bomber|gammadyne|mass ?mail|group ?mail|e-?mail ?(?:broadcast|magnet|mach)|stealth|floodgate|jixing|diffondi|dmailer|dynamailer|massive|mailking|sendfree|targeted|extractor|aristotle|advanced mass sender|direct ?email|ultramail|phpmailer \[version 1|leaf phpmailer|the mailer|mailer pro|turbo-?mailer|superscript|emailer|power ?mailer|advanced mail sender|smtp ?sender)\b/i

function programs(header: Header, found: Report): void {
  const program = fieldValue(header, 'x-mailer') ?? fieldValue(header, 'user-agent') ?? ''
  const id = fieldValue(header, 'message-id') ?? ''
  if (program !== '') {
    const shown = plainLine(program, 60)
    if (BULK.test(program)) {
      found('MAILER_BULK', 2.5, `The program "${shown}" is made to write to strangers.`)
    }
    const form = FORMS.find(({ name }) => name.test(program))
    if (
      form !== undefined &&
      id !== '' &&
      !form.id.test(id) &&
      !has(header, 'list-id') &&
      !has(header, 'sender')
    ) {
      found(
        'MAILER_FORGED',
        2.5,
        `The program "${shown}" makes no Message-ID such as ${plainLine(id, 80)}.`,
      )
    }
    if (/^[a-z0-9]{8,}$|^[A-Z]{5,}$|^\d/.test(program)) {
      found('MAILER_ODD', 1, `No program is called "${shown}".`)
    }
  } else if (has(header, 'x-mailer')) found('MAILER_EMPTY', 0.5, 'The program has an empty name.')
  if (
    has(header, 'x-msmail-priority') &&
    !has(header, 'x-mimeole') &&
    !/outlook 1\d|exchange|internet mail/i.test(program)
  ) {
    found('MAILER_HALF_OUTLOOK', 2, 'The message has one mark of Outlook and lacks the other.')
  }
  if (
    /high|urgent|^1/i.test(
      fieldValue(header, 'x-priority') ?? fieldValue(header, 'importance') ?? '',
    ) &&
    !isAnswer(header)
  ) {
    found('PRIORITY_HIGH', 0.4, 'The message calls itself urgent.')
  }
  const type = fieldValue(header, 'content-type')
  if (type !== null && /multipart|html/i.test(type) && !has(header, 'mime-version')) {
    found('MISSING_MIME_VERSION', 1, 'The message has parts or markup but no MIME-Version.')
  }
}

function isAnswer(header: Header): boolean {
  return has(header, 'in-reply-to') || has(header, 'references')
}

const DAY_MS = 86_400_000
/** Day, month, year, time, zone (RFC 5322 section 3.3, and the forms of old programs). */
const DATE =
  /^(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+)?\d{1,2}[\s-]+(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[\s-]+(?:\d{4}|\d{2})\s+\d{1,2}:\d{2}(?::\d{2})?\s+(?:[+-]\d{4}|[a-z]{1,5})(?:\s*\(.*)?$/i

function dates(header: Header, found: Report): void {
  const date = fieldValue(header, 'date')
  if (date === null || date === '') return
  if (!DATE.test(date)) {
    found('DATE_ODD', 2, `The Date has not the form of one: ${plainLine(date, 60)}.`)
  } else if (/[+-](?:1[5-9]|[2-9]\d)\d\d(?:\s|$)|[+-]\d\d[6-9]\d(?:\s|$)/.test(date)) {
    found(
      'DATE_ZONE',
      3,
      `No place on earth has the time zone of the Date: ${plainLine(date, 60)}.`,
    )
  }
  const written = Date.parse(date.replace(/\(.*$/, ''))
  // The last server stamps it: no clock of ours, so that every node says the same.
  const stamp = /;([^;]+)$/.exec(fieldValue(header, 'received') ?? '')?.[1]
  if (stamp === undefined) return
  const came = Date.parse(stamp.replace(/\(.*$/, ''))
  if (Number.isNaN(written) || Number.isNaN(came)) return
  const ahead = written - came
  if (ahead > DAY_MS / 4) {
    found(
      'DATE_FUTURE',
      ahead > DAY_MS ? 2.5 : 1.5,
      `The Date lies ${span(ahead)} after the time at which a server took it.`,
    )
  } else if (-ahead > 4 * DAY_MS) {
    found(
      'DATE_PAST',
      1,
      `The Date lies ${span(-ahead)} before the time at which a server took it.`,
    )
  }
}

function span(ms: number): string {
  const hours = Math.round(ms / 3_600_000)
  return hours < 48 ? `${hours} hours` : `${Math.round(hours / 24)} days`
}

/** Providers whose mail always passes their own servers, by the domain of From. */
const PROVIDERS: readonly { readonly author: RegExp; readonly way: RegExp }[] = [
  {
    author: /@(?:hotmail|live|msn|outlook)\.[a-z.]{2,6}$/,
    way: /hotmail|outlook|live\.com|msn|microsoft/i,
  },
  { author: /@(?:yahoo|ymail|rocketmail)\.[a-z.]{2,6}$/, way: /yahoo/i },
  { author: /@(?:gmail|googlemail)\.com$/, way: /google|gmail/i },
  { author: /@(?:aol|aim)\.com$/, way: /aol|yahoo/i },
  { author: /@(?:icloud|me|mac)\.com$/, way: /apple|icloud|mac\.com|me\.com/i },
  {
    author: /@(?:gmx|web)\.(?:de|net|com|at|ch)$/,
    way: /gmx|web\.de|kundenserver|1und1|mail\.com/i,
  },
  {
    author: /@(?:excite|lycos|mail|email|eudoramail|juno|netscape|altavista)\.(?:com|net)$/,
    way: /excite|lycos|mail\.com|email\.com|eudoramail|juno|untd|netscape|aol|altavista|iname/i,
  },
]

function ways(header: Header, found: Report): void {
  const received = header.fields.filter(isReceived)
  if (received.length === 0) return
  const author = addressOf(fieldValue(header, 'from') ?? '')
  const provider = PROVIDERS.find((each) => each.author.test(author))
  if (provider !== undefined) {
    const way =
      received.map(({ value }) => value).join('\n') + fieldValues(header, 'message-id').join('')
    if (!provider.way.test(way)) {
      found(
        'FORGED_PROVIDER',
        2,
        `The message of ${plainLine(author, 80)} never passed a server of that provider.`,
      )
    }
  }
  const greeting = received.map(({ value }) => falseGreeting(value)).find((each) => each !== null)
  if (greeting !== undefined && greeting !== null) {
    found(
      'RECEIVED_FALSE_GREETING',
      2.5,
      `A server on the way called itself ${greeting} and was another.`,
    )
  }
  const forged = received.find(({ value }) =>
    /^from \S+ by \S+ with (?:SMTP|ESMTP) id [A-Z]{6,}/.test(value),
  )
  if (forged !== undefined) {
    found('RECEIVED_FORGED', 1.5, `No server writes such a trace: ${plainLine(forged.value, 80)}.`)
  }
}

/** Providers that give their servers names of their own. */
const GREETED =
  /^(?:[\w-]+\.)*((?:yahoo|hotmail|aol|msn|gmail|google|outlook|live|microsoft|icloud|apple|amazon|paypal|ebay|excite|lycos|earthlink|juno|netscape|compuserve|mindspring)\.(?:com|net|co\.uk|de|fr))$/i

/** The provider whose name a hop borrowed; null: none. */
function falseGreeting(value: string): string | null {
  const parts = /^from (\S+) \((?:HELO \S+ )?(\S+)\s+\[?\d|^from (\S+) \(HELO ([^\s)]+)\)/i.exec(
    value,
  )
  if (parts === null) return null
  const greeted = GREETED.exec(parts[1] !== undefined ? parts[1] : (parts[4] ?? ''))?.[1]
  const real = (parts[2] ?? parts[3] ?? '').toLowerCase()
  // Without a name nobody knows whose it is.
  if (greeted === undefined || !real.includes('.') || real.startsWith('[')) return null
  const owner = greeted.toLowerCase().split('.')[0] ?? ''
  return real.includes(owner) || (owner === 'hotmail' && real.includes('msn')) ? null : greeted
}

function isReceived({ name }: Field): boolean {
  return name === 'received'
}

function author(header: Header, found: Report): void {
  const from = fieldValue(header, 'from')
  if (from === null) return
  const address = addressOf(from)
  const at = address.lastIndexOf('@')
  const local = address.slice(0, at)
  // No address at all is for impersonation.ts to tell.
  if (at === -1) return
  if (/^\d|\d{4,}$/.test(local)) {
    found('FROM_NUMBERS', 1, `The address ${plainLine(address, 80)} is made of a name and numbers.`)
  }
  if (/[^aeiouy\d\W_]{6,}/.test(local) && local.length < 24) {
    found('FROM_RANDOM', 0.8, `The name of ${plainLine(address, 80)} cannot be spoken.`)
  }
  const name = from
    .slice(0, from.indexOf('<'))
    .replace(/["\s]+/g, ' ')
    .trim()
  if (
    name.length >= 8 &&
    name === name.toUpperCase() &&
    /[A-Z]{3}/.test(name) &&
    !name.includes('=?')
  ) {
    found('FROM_CAPITALS', 1.2, `The sender is called in capitals: ${plainLine(name, 60)}.`)
  }
}

/** What honest lists and answers have, and what spam seldom takes the pains to have: it counts for a mail. */
function fromLists({ header, raw }: Mail, found: Report): void {
  const list =
    (has(header, 'list-id') || has(header, 'x-mailman-version') || has(header, 'list-post')) &&
    has(header, 'list-unsubscribe')
  if (list) found('LIST_HEADERS', -0.8, 'The message has the fields of a mailing list.')
  if (isAnswer(header) && raw.includes('\n> ', header.bodyStart, 'latin1')) {
    found('ANSWER_QUOTES', -0.8, 'The message answers another one and quotes it.')
  }
}
