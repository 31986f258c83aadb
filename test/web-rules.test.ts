/** The page of rules, and what the page of a mail says of its verdict. */
import { describe, expect, test } from 'bun:test'
import { SETTINGS } from '../src/config/schema.ts'
import type { Preview } from '../src/mail/inspect/contract.ts'
import type { Judgement } from '../src/message/rows.ts'
import { type Finding, type Insight, NO_INSIGHT } from '../src/message/verdict.ts'
import type { Html } from '../web/html.ts'
import { settingLabel } from '../web/parts/labels.ts'
import { hopOf, hopsCard } from '../web/parts/mail.ts'
import { contentCard, senderCard, whatIf } from '../web/parts/verdict-cards.ts'
import type { FakeAdmin } from './web-fake.ts'
import { ORDINARY } from './web-mails.ts'
import { signedIn } from './web-session.ts'

function textOf(card: Html | ''): string {
  return card === '' ? '' : card.text
}

const place = (name?: string) => signedIn(ORDINARY, name)

describe('the page of rules', () => {
  test('gives a rule another weight and takes it back, and says so', async () => {
    const { admin, ask, post } = await place()
    expect((await post('/rules/score', { name: 'GTUBE', score: '3.5', q: 'gt' })).status).toBe(303)
    expect(admin.scores()).toMatchObject([{ rule: 'GTUBE', score: 3.5, by: 'a.ruiz' }])
    const page = await (await ask('/rules?q=gt')).text()
    expect(page).toContain('value="3.5"')
    expect(page).not.toContain('EICAR')
    expect((await post('/rules/reset', { name: 'GTUBE' })).status).toBe(303)
    expect(admin.scores()).toEqual([])
  })

  test('adds a rule, shows it for editing as it is, and removes it', async () => {
    const { admin, ask, post } = await place()
    const form = {
      name: 'our_rule',
      score: '2',
      kind: 'header',
      field: 'Subject',
      pattern: 'a"<b>',
      on: 'on',
    }
    expect((await post('/rules/own', form)).status).toBe(303)
    expect(admin.ownRules()).toMatchObject([
      { name: 'OUR_RULE', on: true, look: { kind: 'header', field: 'subject', pattern: 'a"<b>' } },
    ])
    const page = await (await ask('/rules/own/OUR_RULE')).text()
    expect(page).toContain('value="a&quot;&lt;b&gt;"')
    expect(await (await ask('/rules')).text()).not.toContain('<b>"')
    expect((await post('/rules/own/remove', { name: 'OUR_RULE' })).status).toBe(303)
    expect(admin.ownRules()).toEqual([])
    expect((await ask('/rules/own/OUR_RULE')).status).toBe(404)
  })

  const wrong: readonly (readonly [string, Readonly<Record<string, string>>, string])[] = [
    ['/rules/own', { name: 'A_RULE', score: '2', kind: 'body', pattern: '(' }, 'pattern-e'],
    ['/rules/own', { name: 'a rule', score: '2', kind: 'body', pattern: 'x' }, 'name-e'],
    ['/rules/own', { name: 'A_RULE', score: 'x', kind: 'body', pattern: 'x' }, 'score-e'],
    [
      '/rules/own',
      { name: 'A_RULE', score: '1', kind: 'composite', pattern: 'A &' },
      'expression-e',
    ],
    ['/rules/own', { name: 'A_RULE', score: '1', kind: 'header', pattern: 'x' }, 'field-e'],
    ['/rules/maps', { name: 'A b', text: 'x' }, 'name-e'],
    ['/rules/yara', { name: 'own', text: ' ' }, 'source-e'],
  ]
  for (const [path, form, field] of wrong) {
    test(`says at its field what is wrong: ${path} ${field}`, async () => {
      const { admin, post } = await place()
      const answer = await post(path, form)
      expect(answer.status).toBe(422)
      const page = await answer.text()
      expect(page).toContain(`id="${field}"`)
      // What was typed is still there.
      expect(page).toContain(form['pattern'] ?? form['text'] ?? '')
      expect([admin.ownRules(), admin.maps(), admin.yara()]).toEqual([[], [], []])
    })
  }

  test('a map and a source are typed line by line', async () => {
    const { admin, post } = await place()
    await post('/rules/maps', { name: 'bad', text: 'b.example\r\n\r\na.example # why' })
    await post('/rules/yara', { name: 'own', text: 'rule x { condition: false }' })
    expect(admin.maps()).toMatchObject([{ name: 'bad', entries: ['a.example', 'b.example'] }])
    expect(admin.yara()).toMatchObject([{ name: 'own' }])
  })

  test('who may only look is given nothing to press', async () => {
    const { admin, ask, post } = await place('h.berg')
    const page = await (await ask('/rules')).text()
    expect(page).not.toContain('/rules/score')
    expect((await post('/rules/score', { name: 'GTUBE', score: '1' })).status).toBe(403)
    expect(admin.scores()).toEqual([])
  })
})

describe('what would have changed it', () => {
  const finding = (rule: string, score: number): Finding => ({ rule, score, evidence: 'Seen.' })
  const judged = (findings: readonly Finding[], more: Partial<Judgement> = {}): string => {
    const score = findings.reduce((sum, each) => sum + each.score, 0)
    const verdict = score >= 15 ? 'reject' : score >= 8 ? 'hold' : 'deliver'
    return textOf(
      whatIf({ verdict, score, findings, unknowns: [], holdFrom: 8, rejectFrom: 15, ...more }),
    ).replace(/<[^>]+>/g, '')
  }
  const rows: readonly (readonly [string, string])[] = [
    [
      judged([finding('MISSING_DATE', 3), finding('GTUBE', 6)]),
      'Without Test text for spam filters it would have been delivered. Without No date it would have been delivered.',
    ],
    [
      judged([finding('MISSING_DATE', 1), finding('GTUBE', 10)]),
      'Without Test text for spam filters it would have been delivered.',
    ],
    [
      judged([1, 2, 3, 4, 5].map((n) => finding(`R_${n}`, 2.8))),
      '1.0 more would have it rejected. No single finding decides that it is held.',
    ],
    [judged([finding('A_RULE', 2)]), '6.0 more would have it held.'],
    [
      judged([finding('HAM_RULE', -3), finding('A_RULE', 10)]),
      'Without Ham rule it would have been held.',
    ],
    [
      judged([1, 2, 3].map((n) => finding(`R_${n}`, 12))),
      'No single finding decides: several would have to be missing.',
    ],
    [
      judged([finding('BLOCK_LIST', 0)], { verdict: 'reject' }),
      'Its score alone would have it delivered: a rule or a list decides whatever the score.',
    ],
    [
      judged([], { verdict: 'defer', unknowns: [{ inspector: 'clamd', cause: 'x' }] }),
      'It was not decided by its score: 1 check gave no answer.',
    ],
  ]
  for (const [said, expected] of rows) test(expected, () => expect(said).toBe(expected))
})

describe('the page of a mail', () => {
  const insight: Insight = {
    ...NO_INSIGHT,
    authentication: [
      { method: 'spf', result: 'fail', about: 'a.example', evidence: 'The server <b>may not</b>.' },
      { method: 'dmarc', result: 'temperror', about: 'a.example', evidence: 'Nobody answered.' },
    ],
    urls: ['https://login.evil.example/x?y=<1>', 'mailto:a@b.example'],
    files: [{ path: 'a.zip > <b>.exe', type: 'exe', sizeBytes: 2_000, sha256: 'ab'.repeat(32) }],
  }
  const judgement: Judgement = {
    verdict: 'hold',
    score: 9,
    findings: [],
    unknowns: [],
    holdFrom: 8,
    rejectFrom: 15,
    insight,
  }
  const detail = { rows: [], events: [], judgement, held: null, queue: null, queuedOn: null }

  test('says in words who sent it', () => {
    const card = textOf(senderCard(detail))
    expect(card).toContain('SPF fail')
    expect(card).toContain('The server &lt;b&gt;may not&lt;/b&gt;.')
    expect(
      textOf(senderCard({ ...detail, judgement: { ...judgement, insight: NO_INSIGHT } })),
    ).toBe('')
  })

  test('shows links that nobody opens by a slip, and leads to who else got them', () => {
    const card = textOf(contentCard(detail))
    expect(card).toContain('hxxps://login[.]evil[.]example/x?y=&lt;1&gt;')
    expect(card).not.toContain('href="https://login')
    expect(card).toContain('href="/messages?q=link%3Alogin.evil.example"')
    expect(card).toContain(`href="/messages?q=file%3A${'ab'.repeat(32)}"`)
    expect(card).toContain('a.zip &gt; &lt;b&gt;.exe')
  })

  test('a held mail is checked again with the rules of today, and nothing changes', async () => {
    const { admin, post } = await place()
    const held = admin.kept.find(({ mail }) => mail.state === 'held')
    const answer = await post(`/messages/${held?.id}/again`, {})
    expect(answer.status).toBe(200)
    const page = await answer.text()
    expect(page).toContain('With the rules of today')
    expect(page).toContain('Nothing was changed.')
    expect(admin.heldOne(held?.id ?? '').claims).toEqual([])
  })
})

describe('what a held mail teaches', () => {
  const heldIn = (admin: FakeAdmin) => admin.kept.find(({ mail }) => mail.state === 'held')

  test('is learnt as spam or as wanted, and nothing is released by it', async () => {
    const { admin, post } = await place()
    const held = heldIn(admin)
    for (const as of ['spam', 'ham'])
      expect((await post(`/messages/${held?.id}/learn`, { as })).status).toBe(303)
    expect(admin.calls.filter((call) => call.includes('learnHeld'))).toEqual([
      `a.ruiz: learnHeld ${held?.id} spam`,
      `a.ruiz: learnHeld ${held?.id} ham`,
    ])
    expect(admin.heldOne(held?.id ?? '').claims).toEqual([])
  })

  test('its sender is blocked, or allowed and the mail released', async () => {
    const { admin, post } = await place()
    const held = heldIn(admin)
    await post(`/messages/${held?.id}/list`, { list: 'block' })
    expect(admin.heldOne(held?.id ?? '').claims).toEqual([])
    await post(`/messages/${held?.id}/list`, { list: 'allow' })
    expect(admin.heldOne(held?.id ?? '').claims).toMatchObject([{ kind: 'release' }])
    expect(admin.entries.map(({ list, kind, value }) => `${list} ${kind} ${value}`)).toEqual([
      'block sender rechnung@lieferung-portal.example',
      'allow sender rechnung@lieferung-portal.example',
    ])
  })
})

test('every setting has a name that people say', () => {
  const bare = Object.keys(SETTINGS).filter((key) => settingLabel(key) === key)
  expect(bare).toEqual([])
})

describe('the way of a mail', () => {
  const rows: readonly (readonly [string, ReturnType<typeof hopOf>])[] = [
    [
      'from mx.a.example (mx.a.example [192.0.2.7]) by gw.b.example (Postfix) with ESMTPS id 1 for <x@b.example>; Sun, 22 Nov 2026 12:00:00 +0000',
      {
        from: 'mx.a.example (192.0.2.7)',
        by: 'gw.b.example',
        at: 'Sun, 22 Nov 2026 12:00:00 +0000',
      },
    ],
    ['by 2002:a05:6a10 with SMTP id x', { from: 'somebody', by: '2002:a05:6a10', at: '' }],
    ['from [192.0.2.7] by x; y; z', { from: '[192.0.2.7]', by: 'x', at: 'z' }],
    ['', { from: 'somebody', by: 'somebody', at: '' }],
  ]
  for (const [value, expected] of rows)
    test(value.slice(0, 40) || 'nothing', () => expect(hopOf(value)).toEqual(expected))

  test('is shown as it says itself, and never as markup', () => {
    const preview: Preview = {
      subject: null,
      from: null,
      to: null,
      date: null,
      headers: [{ name: 'Received', value: 'from <b>x</b> by y; <i>now' }],
      text: null,
      html: null,
      attachments: [],
      notes: [],
    }
    const card = textOf(hopsCard(preview))
    expect(card).toContain('&lt;b&gt;x&lt;/b&gt;')
    expect(card).not.toContain('<i>now')
    expect(textOf(hopsCard({ ...preview, headers: [] }))).toBe('')
    expect(textOf(hopsCard('unavailable'))).toBe('')
  })
})
