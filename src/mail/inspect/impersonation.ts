/**
 * Who somebody pretends to be, by what can be seen: names of people who are believed, domains that
 * look like ours, an address in the name, answers that go elsewhere, results of checks that are not
 * ours. What needs the name servers, the use of our own domains first of all, is in sender.ts.
 */
import { parseDomain } from '../../config/lines.ts'
import { fieldValue, fieldValues, type Header, plainLine } from '../../message/header.ts'
import type { Finding } from '../../message/verdict.ts'
import { forgedResults } from './auth/fields.ts'
import type { InspectConfig, Inspector, Look } from './look.ts'
import { Lookalikes } from './lookalike.ts'
import { type Mailbox, mailboxesIn } from './mailboxes.ts'
import { People } from './people.ts'
import { mixesScripts } from './skeleton.ts'
import { domainOf } from './urls.ts'

/** Where everybody can have an address: a company does not answer from there. */
const FREEMAIL = new Set(
  'aol.com aim.com att.net bigpond.com bluewin.ch btinternet.com comcast.net cox.net earthlink.net email.com fastmail.com fastmail.fm free.fr freenet.de gmail.com googlemail.com gmx.at gmx.ch gmx.com gmx.de gmx.net hey.com hotmail.co.uk hotmail.com hotmail.de hotmail.es hotmail.fr hotmail.it hushmail.com icloud.com inbox.com inbox.ru iinet.net.au juno.com laposte.net libero.it list.ru live.co.uk live.com live.de live.fr live.nl lycos.com mac.com mail.com mail.ru mailfence.com me.com msn.com naver.com netscape.net o2.pl ono.com orange.fr outlook.com outlook.de outlook.fr proton.me protonmail.ch protonmail.com qq.com rambler.ru rediffmail.com rocketmail.com sbcglobal.net seznam.cz sfr.fr sky.com t-online.de terra.com.br tiscali.it tuta.io tutanota.com ukr.net uol.com.br verizon.net virgilio.it vodafone.de web.de wanadoo.fr wp.pl ya.ru yahoo.ca yahoo.co.in yahoo.co.jp yahoo.co.uk yahoo.com yahoo.com.br yahoo.de yahoo.es yahoo.fr yahoo.it yandex.com yandex.ru ymail.com zoho.com 126.com 163.com'.split(
    ' ',
  ),
)

export const impersonation: Inspector = {
  name: 'impersonation',
  inspect: (look) => {
    const { mail, session, config } = look
    // Our own people may use their names, and their mail comes from inside.
    if (session.outbound) return []
    const { header } = mail
    const guarded = guardedBy(config)
    const from = fieldValues(header, 'from').map(mailboxesIn)
    const boxes = from.flatMap((list) => list.boxes)
    const answers = mailboxesIn(fieldValue(header, 'reply-to') ?? '').boxes
    return [
      ...authorFindings(
        header,
        boxes,
        from.some(({ isGroup }) => isGroup),
      ),
      ...nameFindings(boxes, answers, guarded),
      ...domainFindings(boxes, answers, look, guarded),
      ...answerFindings(header, boxes, answers, guarded),
      ...resultFindings(look),
    ]
  },
}

type Guarded = {
  readonly people: People
  readonly domains: Lookalikes
  readonly ours: ReadonlySet<string>
}

let kept: { readonly config: InspectConfig; readonly guarded: Guarded } | null = null

/** Of more domains than these every other name is like one by chance: a hoster names those that matter. */
const OWN_MAX = 300

/** Made once for each configuration. */
function guardedBy(config: InspectConfig): Guarded {
  if (kept?.config !== config) {
    const { settings, domains } = config
    const others = settings['sender.lookalikes'].flatMap((line) => parseDomain(line) ?? [])
    kept = {
      config,
      guarded: {
        people: new People(settings['sender.people']),
        domains: new Lookalikes([...(domains.length > OWN_MAX ? [] : domains), ...others], domains),
        ours: new Set(domains),
      },
    }
  }
  return kept.guarded
}

/** No real mail has authors of more domains: somebody is hidden among them. */
const CROWD = 3
/** What mailboxesIn reads of a field. */
const FROM_CHARS_MAX = 8_192

function authorFindings(
  header: Header,
  boxes: readonly Mailbox[],
  isGroup: boolean,
): readonly Finding[] {
  const findings: Finding[] = []
  const written = fieldValue(header, 'from')
  if (written !== null && written.length > FROM_CHARS_MAX) {
    const evidence = `From has ${written.length} characters, and readers differ about who wrote it.`
    return [{ rule: 'FROM_INVALID', score: 8, evidence }]
  }
  const domains = new Set(boxes.map(({ domain }) => domainOf(domain)))
  if (written !== null && boxes.every(({ address }) => address === '')) {
    const evidence = `From names nobody: ${shown(written)}.`
    findings.push({ rule: 'FROM_INVALID', score: 4, evidence })
  } else if (boxes.some(({ address }) => address === '')) {
    const evidence = `A part of From is no address, and readers differ about who wrote it: ${shown(written ?? '')}.`
    findings.push({ rule: 'FROM_INVALID', score: 2, evidence })
  } else if (domains.size > 1) {
    const some = [...domains].slice(0, CROWD).map(shown).join(', ')
    const evidence = `From names authors of ${domains.size} domains: ${some}${domains.size > CROWD ? '…' : '.'}`
    findings.push({ rule: 'FROM_SEVERAL', score: domains.size > CROWD ? 8 : 2, evidence })
  }
  if (isGroup) {
    const evidence = 'From names a group, which no mail program writes.'
    findings.push({ rule: 'FROM_GROUP', score: 2, evidence })
  }
  return findings
}

function nameFindings(
  boxes: readonly Mailbox[],
  answers: readonly Mailbox[],
  { people, ours, domains }: Guarded,
): readonly Finding[] {
  const findings: Finding[] = []
  for (const { name, address, domain } of boxes.slice(0, 4)) {
    if (name === '') continue
    // What comes from our own domain is forged or not, and sender.ts says which.
    const match = ours.has(domain) ? null : people.find(name, address)
    if (match !== null) {
      const near = match.how === 'near' ? 'nearly ' : ''
      const evidence = `The author calls himself ${shown(name)}, which is ${near}the name of ${shown(match.person.name)}, but ${shown(address)} is no address of that person.`
      // Lists write `Ada via List` and let answers go to her: who wants to be believed does not.
      const isAnswered = answers.some((box) => match.person.addresses.includes(box.address))
      const score = isAnswered ? 2 : near === '' ? 8 : 5
      findings.push({ rule: 'PERSON_SPOOF', score, evidence })
    }
    findings.push(...addressInName(name, address, domain, domains))
    findings.push(...deceit(name))
  }
  for (const { name, address, domain } of answers.slice(0, 2)) {
    const match = ours.has(domain) ? null : people.find(name, address)
    if (match === null || findings.some(({ rule }) => rule === 'PERSON_SPOOF')) continue
    const evidence = `Answers go to ${shown(name)}, the name of ${shown(match.person.name)}, but ${shown(address)} is no address of that person.`
    findings.push({ rule: 'PERSON_SPOOF', score: 5, evidence })
  }
  return findings
}

/** `"ceo@ours.example" <x@evil.example>`: a phone shows the name alone. */
function addressInName(
  name: string,
  address: string,
  domain: string,
  guarded: Lookalikes,
): readonly Finding[] {
  const text = name.normalize('NFKC').toLowerCase()
  for (const [written, other = ''] of text.matchAll(
    /[\w.+'-]{1,64}@([\w-]+(?:\.[\w-]+)*\.[a-z]{2,24})/g,
  )) {
    if (written === address || domainOf(other) === domainOf(domain)) continue
    const evidence = `The author's name holds the address ${shown(written)}, but the mail is of ${shown(address)}.`
    // Mailing lists write `ada@example.com via List`, and say so.
    const isList = /\b(?:via|on behalf of)\b/.test(text)
    const score = guarded.has(other) ? 6 : isList ? 0.5 : 3
    return [{ rule: 'FROM_ADDRESS_IN_NAME', score, evidence }]
  }
  return []
}

/** Characters that nobody sees, or letters of several scripts in one word (faults.md H11). */
function deceit(name: string): readonly Finding[] {
  if (/[\u200b\u200c\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff\u00ad]/.test(name)) {
    const evidence = `The author's name ${shown(name)} holds characters that nobody sees.`
    return [{ rule: 'FROM_HIDDEN', score: 3, evidence }]
  }
  if (name.split(/[^\p{L}\p{M}]+/u).some(mixesScripts)) {
    const evidence = `The author's name ${shown(name)} mixes letters of several scripts in one word.`
    return [{ rule: 'FROM_MIXED_SCRIPTS', score: 3, evidence }]
  }
  return []
}

function domainFindings(
  boxes: readonly Mailbox[],
  answers: readonly Mailbox[],
  { session }: Look,
  { domains }: Guarded,
): readonly Finding[] {
  const places: readonly (readonly [where: string, domain: string])[] = [
    ...boxes.map(({ domain }) => ['of the author', domain] as const),
    ...answers.map(({ domain }) => ['to which answers go', domain] as const),
    ['of the sender', session.sender.slice(session.sender.lastIndexOf('@') + 1).toLowerCase()],
  ]
  for (const [where, domain] of places) {
    const likeness = domain === '' ? null : domains.find(domain)
    if (likeness === null) continue
    const evidence = `The domain ${shown(domain)} ${where} ${likeness.how}, and is another one.`
    return [{ rule: 'LOOKALIKE_DOMAIN', score: likeness.score, evidence }]
  }
  return []
}

/** Answers that go to somebody else than who is said to write. */
function answerFindings(
  header: Header,
  boxes: readonly Mailbox[],
  answers: readonly Mailbox[],
  { ours }: Guarded,
): readonly Finding[] {
  const [author] = boxes
  const other = answers.find(({ domain }) => domain !== '' && domain !== author?.domain)
  if (author === undefined || author.domain === '') return []
  const free = answers.find(
    ({ domain, address }) => FREEMAIL.has(domain) && address !== author.address,
  )
  const isList = header.fields.some(({ name }) => name === 'list-id' || name === 'list-unsubscribe')
  if (other !== undefined && ours.has(author.domain) && !ours.has(other.domain)) {
    const evidence = `The author is said to be ${shown(author.address)}, of ours, but answers go to ${shown(other.address)}.`
    return [{ rule: 'REPLYTO_OUTSIDE', score: isList ? 1 : 4, evidence }]
  }
  if (free === undefined || isList) return []
  if (!FREEMAIL.has(author.domain)) {
    const evidence = `The author is ${shown(author.address)}, but answers go to ${shown(free.address)}, where everybody can have an address.`
    return [{ rule: 'FREEMAIL_REPLYTO', score: 2, evidence }]
  }
  if (free.domain === author.domain) return []
  const evidence = `The author ${shown(author.address)} and ${shown(free.address)}, to which answers go, are of different free providers.`
  return [{ rule: 'FREEMAIL_REPLYTO_OTHER', score: 1, evidence }]
}

/** Cut off here too: sender.ts says nothing when the name servers fail. */
function resultFindings({ mail, config, change }: Look): readonly Finding[] {
  const cuts = forgedResults(mail.raw, mail.header, config)
  if (cuts.length === 0) return []
  change({ cuts })
  const evidence =
    'The mail came with results of checks in the name of this gateway; they are cut off.'
  return [{ rule: 'FORGED_RESULTS', score: 0, evidence }]
}

function shown(text: string): string {
  return plainLine(text, 120)
}
