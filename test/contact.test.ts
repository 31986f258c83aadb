/** First contact: who is said to be a stranger, to whom, and that nobody is while nothing is known. */
import { describe, expect, test } from 'bun:test'
import { StoreError } from '../src/base/errors.ts'
import { type DnsAnswer, type DnsQuestion, keyOf, type Names } from '../src/base/names.ts'
import { initialSettings, type Settings } from '../src/config/schema.ts'
import { authorOf } from '../src/mail/decide/judgement.ts'
import { weigh } from '../src/mail/decide/outcome.ts'
import { capScores } from '../src/mail/inspect/answers.ts'
import { HistoryNames } from '../src/mail/inspect/history.ts'
import type { SessionFacts } from '../src/mail/inspect/look.ts'
import { CATALOGUE } from '../src/message/catalogue.ts'
import type { Envelope } from '../src/message/envelope.ts'
import type { Judgement, NewTraceRow } from '../src/message/rows.ts'
import type { Inspection } from '../src/message/verdict.ts'
import { lookLong } from './look.ts'
import { type Room, rooms } from './rooms.ts'

const { room } = rooms()
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

const NOBODY: Names = { query: () => Promise.resolve({ status: 'absent' }) }

type Options = {
  readonly settings?: Partial<Settings>
  readonly session?: Partial<SessionFacts>
  readonly isWhole?: boolean
  readonly from?: string
  readonly names?: Names
}

/** What is said of a mail of `author` that comes now. */
async function said(here: Pick<Room, 'trace' | 'clock'>, author: string, options: Options = {}) {
  const settings = { ...initialSettings(), ...options.settings }
  const names = new HistoryNames({
    names: options.names ?? NOBODY,
    trace: here.trace,
    settings: () => settings,
    isWhole: () => options.isWhole ?? true,
  })
  const raw = Buffer.from(
    `From: ${options.from ?? `Ada <${author}>`}\r\nSubject: x\r\n\r\nHello.\r\n`,
  )
  const answers: Record<string, DnsAnswer> = {}
  for (;;) {
    const seen = await lookLong(raw, {
      session: {
        sender: author,
        recipients: ['b@ours.example'],
        receivedMs: here.clock.wallMs(),
        ...options.session,
      },
      config: { settings, domains: ['ours.example', 'other.example'] },
      answers,
      inspectors: ['sender'],
    })
    if (seen.questions.length === 0) {
      return seen.findings.filter(({ rule }) => rule.startsWith('FIRST_CONTACT'))
    }
    for (const text of seen.questions) {
      const [type = '', name = ''] = text.split(' ')
      const question = { type: type as DnsQuestion['type'], name }
      answers[keyOf(question)] ??= await names.query(question)
    }
  }
}

const rules = async (...given: Parameters<typeof said>): Promise<readonly string[]> =>
  (await said(...given)).map(({ rule }) => rule)

const NEW = ['FIRST_CONTACT', 'FIRST_CONTACT_DOMAIN']

/** A mail of `author` that was decided now. */
function wrote(here: Pick<Room, 'trace' | 'row'>, author: string, part: Partial<NewTraceRow> = {}) {
  const row = here.row({ sender: author, recipient: 'b@ours.example', ...part })
  const judgement: Judgement = {
    verdict: 'deliver',
    score: 0,
    findings: [],
    unknowns: [],
    holdFrom: 8,
    rejectFrom: 15,
    author,
  }
  here.trace.record([row], [], judgement)
  here.trace.flush()
  return row.id
}

/** With 15 days of mail for ours.example. */
function old(): Room {
  const here = room()
  wrote(here, 'old@friend.example')
  here.clock.advance(15 * DAY_MS)
  return here
}

describe('a first contact', () => {
  test('is said in words of who was never seen here, and apart of a domain that was not', async () => {
    const here = old()
    expect(await said(here, 'ada@stranger.example')).toEqual([
      {
        rule: 'FIRST_CONTACT',
        score: 0.2,
        evidence:
          'Nobody at ours.example has had mail from ada@stranger.example before. Nobody vouches for this one.',
      },
      {
        rule: 'FIRST_CONTACT_DOMAIN',
        score: 0.3,
        evidence:
          'Nobody at ours.example has had mail from any address of stranger.example before.',
      },
    ])
    expect(await rules(here, 'ada@friend.example')).toEqual(['FIRST_CONTACT'])
    expect(await rules(here, 'old@friend.example')).toEqual([])
    expect(await rules(here, 'OLD@Friend.Example')).toEqual([])
  })

  test('says so where the domain vouches for the mail', async () => {
    const records = 'v=spf1 ip4:192.0.2.1 -all'
    const names: Names = {
      query: ({ name, type }) =>
        Promise.resolve(
          name === 'stranger.example' && type === 'TXT'
            ? { status: 'found', records: [records] }
            : { status: 'absent' },
        ),
    }
    const [first] = await said(old(), 'ada@stranger.example', { names })
    expect(first?.evidence).toEndWith(' Its domain vouches for this one.')
  })

  test('is one until the first mail that was let in is a day old', async () => {
    const here = old()
    wrote(here, 'ada@stranger.example')
    here.clock.advance(HOUR_MS)
    wrote(here, 'ada@stranger.example')
    here.clock.advance(DAY_MS - HOUR_MS)
    expect(await rules(here, 'ada@stranger.example')).toEqual(NEW)
    here.clock.advance(1)
    expect(await rules(here, 'ada@stranger.example')).toEqual([])
  })

  test('stays one after mail that was refused or held, until somebody releases it', async () => {
    const here = old()
    for (const accept of ['rejected', 'deferred', 'refused'] as const) {
      wrote(here, 'ada@stranger.example', { accept, delivery: null })
    }
    const id = wrote(here, 'ada@stranger.example', { accept: 'held', delivery: 'held' })
    here.clock.advance(3 * DAY_MS)
    expect(await rules(here, 'ada@stranger.example')).toEqual(NEW)
    const event = {
      atMs: here.clock.wallMs(),
      recipient: null,
      what: 'released',
      detail: 'by anna',
    }
    here.trace.outcome(id, 0, 'released', null, event)
    here.trace.flush()
    expect(await rules(here, 'ada@stranger.example')).toEqual([])
  })

  test('is one for each domain of ours; whom one of the recipients knows is none', async () => {
    const here = old()
    wrote(here, 'x@friend.example', { recipient: 'c@other.example' })
    here.clock.advance(14 * DAY_MS + 1)
    const to = (...recipients: readonly string[]) => ({ session: { recipients } })
    expect(await rules(here, 'old@friend.example', to('c@other.example'))).toEqual([
      'FIRST_CONTACT',
    ])
    const both = to('c@other.example', 'B@Ours.Example')
    expect(await rules(here, 'old@friend.example', both)).toEqual([])
    const [first] = await said(here, 'ada@stranger.example', both)
    expect(first?.evidence).toStartWith('Nobody at other.example, ours.example has had mail from ')
  })

  test('weighs too little to hold a mail, and is there for rules of the operator', async () => {
    const found = await said(old(), 'ada@stranger.example')
    expect(found.reduce((sum, { score }) => sum + score, 0)).toBe(0.5)
    for (const { rule, score } of found) {
      expect(CATALOGUE.find((one) => one.rule === rule)).toMatchObject({ score })
    }
    const spoof = { rule: 'PERSON_SPOOF', score: 5, evidence: 'A name.' }
    const worse = { ...spoof, rule: 'OWN_DOMAIN_SPOOF', score: 12 }
    const together = capScores([worse, ...found]).reduce((sum, { score }) => sum + score, 0)
    expect(together).toBe(12)
    const detection = {
      rules: [
        {
          name: 'STRANGER_AS_CHIEF',
          score: 4,
          on: true,
          describe: '',
          look: { kind: 'composite', expression: 'FIRST_CONTACT & PERSON_SPOOF' },
        },
      ],
      scores: {},
      maps: {},
      yara: {},
    } as const
    expect(weigh([spoof, ...found], detection).map(({ rule }) => rule)).toContain(
      'STRANGER_AS_CHIEF',
    )
  })
})

describe('nothing is said', () => {
  test('until the domain has had mail for the days of the setting', async () => {
    const here = room()
    expect(await rules(here, 'ada@stranger.example')).toEqual([])
    wrote(here, 'old@friend.example')
    here.clock.advance(14 * DAY_MS)
    expect(await rules(here, 'ada@stranger.example')).toEqual([])
    here.clock.advance(1)
    expect(await rules(here, 'ada@stranger.example')).toEqual(NEW)
    const settings = { 'sender.firstContact': 15 }
    expect(await rules(here, 'ada@stranger.example', { settings })).toEqual([])
  })

  test('of mail without a sender, of ours, of who may relay, and where it is off', async () => {
    const here = old()
    const author = 'ada@stranger.example'
    expect(await rules(here, author, { session: { sender: '' } })).toEqual([])
    expect(await rules(here, author, { session: { outbound: true } })).toEqual([])
    expect(await rules(here, 'new@ours.example')).toEqual([])
    expect(await rules(here, 'new@mail.ours.example')).toEqual([])
    expect(await rules(here, author, { settings: { 'sender.firstContact': 0 } })).toEqual([])
    expect(await rules(here, author, { from: 'nobody at all' })).toEqual([])
  })

  test('while the history of the other nodes is not here', async () => {
    expect(await rules(old(), 'ada@stranger.example', { isWhole: false })).toEqual([])
  })

  test('when history is kept for less than the setting asks', async () => {
    const settings = { 'trace.keep': 14 }
    expect(await rules(old(), 'ada@stranger.example', { settings })).toEqual([])
  })
})

test('an author is kept only where somebody asks who is known', () => {
  const envelope = { outbound: false, sender: 'bounces@stranger.example' } as Envelope
  const inspection = { facts: { authors: ['ada@stranger.example'] } } as unknown as Inspection
  const settings = initialSettings()
  const kept = (changes: Partial<Settings>, other: Partial<Envelope> = {}): string | undefined =>
    authorOf({ ...envelope, ...other }, inspection, { ...settings, ...changes })
  expect(kept({})).toBe('ada@stranger.example')
  expect(kept({ 'sender.firstContact': 0 })).toBeUndefined()
  expect(kept({ 'inspect.inspectors': ['headers'] })).toBeUndefined()
  expect(kept({}, { outbound: true })).toBeUndefined()
  expect(kept({}, { sender: '' })).toBeUndefined()
})

test('whom the history forgets is a stranger again, on all nodes at the same time', async () => {
  const here = room()
  wrote(here, 'old@friend.example')
  here.clock.advance(15 * DAY_MS)
  wrote(here, 'other@friend.example')
  here.clock.advance(15 * DAY_MS - HOUR_MS)
  expect(await rules(here, 'old@friend.example')).toEqual([])
  // It is still there: another node may have forgotten it already.
  here.clock.advance(1)
  expect(await rules(here, 'old@friend.example')).toEqual(['FIRST_CONTACT'])
})

test('nodes that are half a day behind each other say the same', async () => {
  const [one, other] = [room(), room()]
  for (const here of [one, other]) {
    wrote(here, 'old@friend.example')
    here.clock.advance(15 * DAY_MS)
  }
  wrote(one, 'ada@stranger.example')
  wrote(one, 'new@friend.example')
  for (const here of [one, other]) here.clock.advance(12 * HOUR_MS)
  for (const author of ['ada@stranger.example', 'new@friend.example', 'old@friend.example']) {
    const both = [await said(one, author), await said(other, author)].map((each) =>
      JSON.stringify(each),
    )
    expect(both[0]).toBe(both[1] ?? '')
  }
})

test('a store that fails is said, and neither an unknown mail nor a stranger', async () => {
  const here = old()
  const trace = {
    saw: (): boolean => {
      throw new StoreError('the disk is gone', { remedy: 'retry' })
    },
  }
  const broken = { trace, clock: here.clock } as unknown as Room
  expect(await said(broken, 'ada@stranger.example')).toEqual([
    {
      rule: 'FIRST_CONTACT_UNKNOWN',
      score: 0,
      evidence:
        'Whether anybody at ours.example has had mail from ada@stranger.example before is not known: the disk is gone.',
    },
  ])
})
