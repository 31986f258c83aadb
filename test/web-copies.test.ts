/** What the pages say of copies, owners and what somebody should look at, driven in process. */
import { describe, expect, test } from 'bun:test'
import type { Alert } from '../src/admin/contract.ts'
import { SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { SystemRandom } from '../src/base/random.ts'
import { createWeb, type Web } from '../web/server.ts'
import { FakeAdmin, type Mail, PASSWORD } from './web-fake.ts'
import { nodeId } from './web-fake-cluster.ts'

const clock = new SystemClock()
const WAITS: Mail = {
  sender: 'shop@parts.example',
  recipients: ['lager@example.com'],
  subject: 'Order',
  state: 'deferred',
  reply: '451 later',
  minutesAgo: 3,
}
const HELD: Mail = {
  ...WAITS,
  subject: 'Offer',
  state: 'held',
  findings: [{ rule: 'GTUBE', score: 10, evidence: 'test text' }],
  on: 'mx3',
  copies: ['mx1'],
}

function alert(more: Partial<Alert> = {}): Alert {
  return {
    id: 'dead x',
    kind: 'dead',
    level: 'bad',
    node: { id: nodeId('mx3'), name: 'mx3' },
    sinceMs: clock.wallMs() - 245_000,
    title: 'mx3 does not answer',
    meaning: '14 mails wait.',
    advice: 'Remove it if it is gone for good.',
    command: 'postern remove mx3',
    ...more,
  }
}

type Place = { readonly admin: FakeAdmin; readonly web: Web }

function place(mails: readonly Mail[], nodes?: readonly string[]): Place {
  const admin = new FakeAdmin({ clock, mails, ...(nodes === undefined ? {} : { nodes }) })
  const observer = new Observer(clock, () => {})
  const random = new SystemRandom()
  return {
    admin,
    web: createWeb({ admin, clock, random, observer, secure: false, nodeName: 'mx1' }),
  }
}

type Form = Readonly<Record<string, string>>

/** By the control socket, which needs neither login nor token; `name`: in a session of this one. */
async function ask({ web }: Place, path: string, form?: Form, name?: string) {
  const client = { ip: '203.0.113.9', trusted: name === undefined }
  const headers = new Headers()
  if (form !== undefined) headers.set('content-type', 'application/x-www-form-urlencoded')
  // A browser always sends the token, and with it a body.
  const fields = new URLSearchParams({ _csrf: '', ...form })
  if (name !== undefined) {
    const { cookie, csrf } = await signIn(web, name)
    headers.set('cookie', cookie)
    fields.set('_csrf', csrf)
  }
  const method = form === undefined ? 'GET' : 'POST'
  const body = form === undefined ? null : fields.toString()
  return await web.handle(new Request(`http://localhost${path}`, { method, headers, body }), client)
}

async function signIn(web: Web, name: string) {
  const request = new Request('http://localhost/api/v1/login', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name, password: PASSWORD }),
  })
  const answer = await web.handle(request, { ip: '203.0.113.9', trusted: false })
  const { csrf } = (await answer.json()) as { csrf: string }
  return { csrf, cookie: (answer.headers.get('set-cookie') ?? '').split(';')[0] ?? '' }
}

async function text(at: Place, path: string, form?: Form, name?: string): Promise<string> {
  return await (await ask(at, path, form, name)).text()
}

const idOf = ({ admin }: Place, subject: string): string =>
  admin.kept.find(({ mail }) => mail.subject === subject)?.id ?? ''

describe('the queue', () => {
  test('says of each mail who delivers it and who has a copy, in words', async () => {
    const at = place([
      { ...WAITS, subject: 'one', copies: ['mx2'] },
      { ...WAITS, subject: 'two', copies: ['mx2?'] },
      { ...WAITS, subject: 'three' },
      { ...WAITS, subject: 'four', on: 'mx2', term: 3 },
    ])
    const body = await text(at, '/queue')
    const rows = new Map(
      [...body.matchAll(/<tr>.*?<\/tr>/gs)].flatMap(([row]) => {
        const [, subject = ''] = /messages\/\w+">(\w+)</.exec(row) ?? []
        return subject === '' ? [] : [[subject, row.replace(/<[^>]+>/g, ' ')] as const]
      }),
    )
    expect(rows.get('one')).toContain('copy on mx2')
    expect(rows.get('two')).toContain('perhaps on mx2')
    expect(rows.get('two')).not.toContain('only')
    expect(rows.get('three')).toContain('only here')
    expect(rows.get('four')).toContain('only on mx2')
    expect(await text(at, `/messages/${idOf(at, 'four')}`)).toContain('it changed hands 2 times')
  })

  test('of a node alone says nothing of copies, and has no filter', async () => {
    const body = await text(place([WAITS], ['mx1']), '/queue')
    expect(body).not.toContain('only here')
    expect(body).not.toContain('Only one copy')
  })

  test('shows only what has one copy, and says so when there is none', async () => {
    const at = place([
      { ...WAITS, subject: 'safe', copies: ['mx2'] },
      { ...WAITS, subject: 'single' },
    ])
    const body = await text(at, '/queue?alone=1')
    expect([body.includes('>safe<'), body.includes('>single<')]).toEqual([false, true])
    expect(body).toContain('1 mail on one node only')
    expect(body).not.toContain('Deliver all now')
    at.admin.kept.pop()
    expect(await text(place([]), '/queue?alone=1')).toContain('Every waiting mail has a copy')
  })

  test('names a node that gives no answer, shows what others have of its queue, and is no error', async () => {
    const at = place([
      { ...WAITS, subject: 'copied', on: 'mx3', copies: ['mx1'] },
      { ...WAITS, subject: 'gone', on: 'mx3' },
      WAITS,
    ])
    at.admin.turn('mx3', 'dead')
    const answer = await ask(at, '/queue')
    const body = await answer.text()
    expect(answer.status).toBe(200)
    expect(body).toContain('<b>mx3 gives no answer.</b>')
    expect([body.includes('>copied<'), body.includes('>gone<')]).toEqual([true, false])
    expect(body).toContain('With mx3')
    expect(body.match(/Deliver now/g)).toHaveLength(1)
    const page = await text(at, `/messages/${idOf(at, 'copied')}`)
    expect(page).toContain('or when a node with a copy takes it over')
    expect(page).not.toContain('/retry')
  })

  test('says why something waits although its time has come', async () => {
    const at = place([{ ...WAITS, waits: 'Another node has taken it over.' }])
    expect(await text(at, '/queue')).toContain('Another node has taken it over.')
    expect(await text(at, `/messages/${idOf(at, 'Order')}`)).toContain(
      '<b>It waits.</b> Another node has taken it over.',
    )
  })

  test('whose owner went away while the button was pressed is a sentence, not an error', async () => {
    const at = place([{ ...WAITS, on: 'mx3', copies: ['mx1'] }])
    const path = `/queue/${idOf(at, 'Order')}`
    at.admin.turn('mx3', 'dead')
    for (const [act, form] of [
      ['retry', {}],
      ['drop', { bounce: 'yes' }],
    ] as const) {
      expect((await ask(at, `${path}/${act}`, form)).status).toBe(303)
    }
    const answer = await ask(at, `/api/v1${path}`)
    expect(await answer.json()).toMatchObject({
      node: nodeId('mx3'),
      nodeName: 'mx3',
      holders: [{ nodeName: 'mx1', state: 'kept' }],
    })
  })
})

describe('held mail that may have been released elsewhere', () => {
  test('asks, and is released anyway by a button of its own', async () => {
    const at = place([{ ...HELD, doubtMinutes: 9 }])
    at.admin.turn('mx3', 'dead')
    const path = `/messages/${idOf(at, 'Offer')}`
    const page = await text(at, path)
    expect(page).toContain('Waits for mx3. It may have been released there since ')
    expect(page).toContain('could arrive twice')
    expect(page.match(/action="[^"]*\/release"/g)).toHaveLength(1)
    expect(page).toContain('name="anyway" value="yes"')
    expect(await text(at, `/quarantine/${idOf(at, 'Offer')}/peek`)).toContain('Decide</a>')
    const refused = await ask(at, `${path}/release`, {})
    expect(refused.status).toBe(409)
    expect(await refused.text()).toContain('This mail may have been released on mx3.')
    expect(at.admin.calls).toEqual([])
    expect((await ask(at, `${path}/release`, { anyway: 'yes' })).status).toBe(303)
    expect(at.admin.calls[0]).toStartWith('cli: anyway ')
    expect(await text(at, path)).toContain('Released')
  })

  test('is released over the API with anyway, and refused as doubtful without', async () => {
    const at = place([{ ...HELD, doubtMinutes: 9 }])
    at.admin.turn('mx3', 'dead')
    const path = `http://localhost/api/v1/quarantine/${idOf(at, 'Offer')}`
    const send = (body: object) =>
      at.web.handle(
        new Request(`${path}/release`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(body),
        }),
        { ip: '', trusted: true },
      )
    const refused = await send({})
    expect([refused.status, await refused.json()]).toMatchObject([
      409,
      { error: { code: 'doubtful' } },
    ])
    const one = (await (await ask(at, new URL(path).pathname)).json()) as { waits: object }
    expect(one.waits).toMatchObject({ words: 'waits for mx3', doubtSince: expect.any(String) })
    expect((await send({ anyway: true })).status).toBe(200)
  })

  test('is counted apart when many are released at once', async () => {
    const at = place([
      { ...HELD, doubtMinutes: 9 },
      { ...HELD, on: 'mx1', subject: 'Mine' },
    ])
    at.admin.turn('mx3', 'dead')
    const { cookie, csrf } = await signIn(at.web, 'a.ruiz')
    const fields = new URLSearchParams({ act: 'release', _csrf: csrf })
    for (const { id } of at.admin.kept) fields.append('mid', id)
    const headers = { cookie, 'content-type': 'application/x-www-form-urlencoded' }
    const client = { ip: '203.0.113.9', trusted: false }
    const request = (path: string, body?: string) =>
      new Request(`http://localhost${path}`, {
        headers,
        ...(body === undefined ? {} : { method: 'POST', body }),
      })
    await at.web.handle(request('/quarantine/bulk', fields.toString()), client)
    const page = await (await at.web.handle(request('/quarantine'), client)).text()
    expect(page).toContain('Released 1 mail, 1 may have been released before: look at each')
  })

  test('names who has its content', async () => {
    const at = place([HELD])
    expect(await text(at, `/messages/${idOf(at, 'Offer')}`)).toContain(
      '<dt>Held by</dt><dd>mx3, mx1</dd>',
    )
  })
})

describe('alerts', () => {
  test('say that all is well when it is, and no page has a badge', async () => {
    const at = place([])
    expect(await text(at, '/alerts')).toContain('<h3>All is well</h3>')
    expect(await text(at, '/')).toContain('<a id="bell" href="/alerts" hidden></a>')
    expect(await (await ask(at, '/api/v1/alerts')).json()).toEqual({
      rows: [],
      total: 0,
      cursor: null,
    })
  })

  test('say what, since when, what it means and what to do; every page counts them', async () => {
    const at = place([])
    const drained = { kind: 'drained', level: 'warn', title: 'mx2 is drained' } as const
    const mx2 = { id: nodeId('mx2'), name: 'mx2' }
    at.admin.alertList = [alert(), alert({ ...drained, node: mx2, command: null })]
    const body = await text(at, '/alerts')
    for (const words of [
      '2 things to look at, 1 of them now',
      'mx3 does not answer',
      ', 4 min</time>',
      '14 mails wait.',
      'Remove it if it is gone for good.',
      'postern remove mx3</code>',
      `href="/cluster/nodes/${nodeId('mx3')}/remove"`,
      `action="/cluster/nodes/${nodeId('mx2')}/undrain"`,
    ])
      expect([words, body.includes(words)]).toEqual([words, true])
    for (const path of ['/', '/queue', '/quarantine', '/settings', '/cluster'])
      expect(await text(at, path)).toContain('2 alerts</a>')
    expect(await text(at, '/live?at=operators')).toContain('2 alerts</a>')
    const { alerts } = (await (await ask(at, '/api/v1/status')).json()) as { alerts: object[] }
    expect(alerts).toHaveLength(2)
  })

  test('are told to an open page by its stream, and a viewer gets no button', async () => {
    const at = place([])
    const stream = await ask(at, '/events/alerts', undefined, 'h.berg')
    const reader = stream.body?.getReader()
    const next = async () => new TextDecoder().decode((await reader?.read())?.value)
    expect(await next()).toContain('All is well')
    at.admin.alertList = [alert()]
    at.admin.turn('mx3', 'dead')
    const told = await next()
    expect(told).toContain('mx3 does not answer')
    expect(told).not.toContain('/remove"')
    await reader?.cancel()
    at.web.close()
  })

  test('with words of strangers are text', async () => {
    const evil = '<img src=x onerror=alert(1)>'
    const at = place([])
    const node = { id: nodeId('mx3'), name: evil }
    at.admin.alertList = [alert({ node, title: evil, meaning: evil, advice: evil, command: evil })]
    expect(await text(at, '/alerts')).not.toContain('<img')
  })
})

describe('the cluster', () => {
  test('shows what each node keeps for others and what it alone has', async () => {
    const at = place([])
    at.admin.nodes = at.admin.nodes.map((node) => ({
      ...node,
      report: node.report && {
        ...node.report,
        copies: 41,
        alone: node.here ? 7 : 0,
        takesCopies: false,
      },
    }))
    const body = await text(at, '/cluster')
    expect(body).toContain('data-label="Keeps copies">41<br><small>takes none</small>')
    expect(body).toContain('data-label="One copy"><a class="c held" href="/queue?alone=1">7</a>')
  })

  test('warns before a node is removed that held mail may arrive twice, and counts what is lost', async () => {
    const at = place([])
    const [, , mx3] = at.admin.nodes
    const report = mx3?.report ?? null
    at.admin.turn('mx3', 'dead', { report: report && { ...report, alone: 2 } })
    const body = await text(at, `/cluster/nodes/${nodeId('mx3')}/remove`)
    expect(body).toContain('could arrive twice')
    expect(body).toContain('goes on at once, from the nodes that have copies')
    expect(body).toContain('2 of them are only there, and lost to the cluster.')
  })

  test('makes a token for a node in place of another, and says what that does', async () => {
    const at = place([])
    const form = { minutes: '', uses: '', name: '', replaces: nodeId('mx3') }
    const body = await text(at, '/cluster/invite', form)
    expect(body).toContain('<b>When it is in, mx3 is removed.</b>')
    expect(at.admin.replaced).toEqual([nodeId('mx3')])
    expect(await text(at, '/cluster')).toContain(`<option value="${nodeId('mx3')}">mx3</option>`)
  })

  test('settings of copies and isolation say what each choice costs, and are saved', async () => {
    const at = place([])
    const body = await text(at, '/settings?group=Cluster')
    for (const words of [
      'is lost if the disk of this node is lost',
      'nothing comes in',
      'may arrive twice',
      'that mail is late',
    ])
      expect([words, body.includes(words)]).toEqual([words, true])
    expect(
      (await ask(at, '/settings', { group: 'Cluster', 'cluster.copies': 'require' })).status,
    ).toBe(303)
    expect(at.admin.setting('cluster.copies').value).toBe('require')
  })
})
