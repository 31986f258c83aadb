/** Pages and API, driven in process: who may what, and the shapes that scripts rely on. */
import { describe, expect, test } from 'bun:test'
import { getSchemaValidator, type TSchema } from 'elysia'
import { type Clock, SystemClock } from '../src/base/clock.ts'
import { RefusalError } from '../src/base/errors.ts'
import { Observer } from '../src/base/observe.ts'
import { SystemRandom } from '../src/base/random.ts'
import { apiRoutes } from '../web/api-routes.ts'
import { Guard } from '../web/guard.ts'
import { html, safePath } from '../web/html.ts'
import { createWeb, PAGE_POLICY, type Web } from '../web/server.ts'
import { ManualClock } from './clock.ts'
import { CODE, FakeAdmin, type Mail, PASSWORD } from './web-fake.ts'
import { NODE, nodeId } from './web-fake-cluster.ts'
import { ORDINARY } from './web-mails.ts'

type World = { readonly admin: FakeAdmin; readonly web: Web; readonly log: () => string }

const system = new SystemClock()
const OUTSIDE = { ip: '203.0.113.9', trusted: false }
const SOCKET = { ip: '', trusted: true }

type Options = {
  readonly mails?: readonly Mail[]
  readonly setup?: boolean
  readonly ready?: boolean
  readonly secure?: boolean
  readonly nodes?: readonly string[]
  readonly clock?: Clock
}

function world(options: Options = {}): World {
  const { mails = ORDINARY, setup = false, ready = true, secure = false } = options
  const { nodes = ['mx1', 'mx2', 'mx3'], clock = system } = options
  const about = { clock, mails, setup, ready, nodes, ...(setup ? { domains: [] } : {}) }
  const admin = new FakeAdmin(about)
  furnish(admin, clock.wallMs())
  const log: string[] = []
  const observer = new Observer(clock, (lines) => log.push(lines))
  const web = createWeb({
    admin,
    clock,
    random: new SystemRandom(),
    observer,
    secure,
    nodeName: 'mx1',
  })
  return {
    admin,
    web,
    log: () => {
      observer.flush()
      return log.join('')
    },
  }
}

/** One of everything that a page or a route may name. */
function furnish(admin: FakeAdmin, nowMs: number): void {
  const author = { name: 'a.ruiz', role: 'admin' } as const
  const look = { kind: 'header', field: 'subject', pattern: 'x' }
  void admin.addSigningKey(author, { domain: 'example.com', selector: 's2026', algorithm: 'rsa' })
  void admin.putDetection(author, 'rule', 'GTUBE', { score: 1, look })
  void admin.putDetection(author, 'score', 'GTUBE', { score: 4 })
  void admin.putDetection(author, 'map', 'own', { entries: ['a.example'] })
  void admin.putDetection(author, 'yara', 'own', { source: 'rule x { condition: false }' })
  const [by, atMs] = ['t.nagy', nowMs]
  admin.tokens.push({
    id: 'pj1_open',
    state: 'open',
    issuer: NODE,
    issuedMs: nowMs,
    by,
    expiresMs: nowMs + 900_000,
    usedBy: null,
  })
  admin.conflictList.push({
    key: 'setting/policy.hold',
    sides: [
      { id: 'ours', value: '7', by: 'a.ruiz', node: 'mx1', atMs },
      { id: 'theirs', value: '9', by, node: 'mx2', atMs },
    ],
  })
  admin.entries.push({
    list: 'allow',
    kind: 'ip',
    value: '192.0.2.0/24',
    note: 'scanner',
    by,
    addedMs: nowMs,
  })
  const row = {
    id: 't0',
    name: 'old',
    role: 'viewer',
    by,
    addedMs: nowMs,
    expiresMs: null,
  } as const
  admin.apiTokenList.push({ ...row, secret: 'pat1_old' })
}

type Ask = {
  readonly method?: string
  readonly session?: Session | undefined
  readonly form?: Readonly<Record<string, string | readonly string[]>>
  readonly json?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly client?: typeof OUTSIDE
  /** Leave the token out. */
  readonly bare?: boolean
}

type Session = { readonly cookie: string; readonly csrf: string }

/** `localhost`, not a short name: the router looks for the path from character 11 of the URL on. */
function ask({ web }: World, path: string, about: Ask = {}): Promise<Response> {
  const { session, form, json, client = OUTSIDE, bare = false } = about
  const method = about.method ?? (form === undefined && json === undefined ? 'GET' : 'POST')
  const headers = new Headers(about.headers)
  if (session !== undefined) headers.set('cookie', session.cookie)
  let body: string | null = null
  if (json !== undefined) {
    headers.set('content-type', 'application/json')
    body = JSON.stringify(json)
  }
  if (form !== undefined) {
    const fields = new URLSearchParams()
    for (const [name, value] of Object.entries(form)) {
      for (const one of typeof value === 'string' ? [value] : value) fields.append(name, one)
    }
    if (session !== undefined && !bare) fields.set('_csrf', session.csrf)
    headers.set('content-type', 'application/x-www-form-urlencoded')
    body = fields.toString()
  } else if (session !== undefined && method !== 'GET' && !bare) {
    headers.set('x-csrf-token', session.csrf)
  }
  return web.handle(new Request(`http://localhost${path}`, { method, headers, body }), client)
}

async function signIn(place: World, name = 'a.ruiz'): Promise<Session> {
  const answer = await ask(place, '/api/v1/login', { json: { name, password: PASSWORD } })
  expect(answer.status).toBe(200)
  const { csrf } = (await answer.json()) as { csrf: string }
  const cookie = (answer.headers.get('set-cookie') ?? '').split(';')[0] ?? ''
  return { cookie, csrf }
}

const HELD = ({ admin }: World): string =>
  admin.kept.find(({ mail }) => mail.state === 'held')?.id ?? ''
const WAITING = ({ admin }: World): string =>
  admin.kept.find(({ mail }) => mail.state === 'deferred')?.id ?? ''

/** Every page that shows something, and every form that does something. */
const PAGES = (place: World): readonly string[] => [
  '/',
  '/?t=7d',
  '/messages',
  '/messages?q=is%3Aheld',
  `/messages/${HELD(place)}`,
  `/messages/${HELD(place)}?view=text`,
  `/messages/${HELD(place)}?view=headers`,
  `/messages/${HELD(place)}?view=source`,
  `/messages/${HELD(place)}/delete`,
  `/messages/${HELD(place)}/frame`,
  `/messages/${HELD(place)}/source`,
  `/messages/${WAITING(place)}`,
  '/quarantine',
  '/quarantine?q=form%3Ax',
  `/quarantine/${HELD(place)}/peek`,
  '/queue',
  `/queue/${WAITING(place)}/drop`,
  '/settings',
  '/settings?group=Limits',
  '/settings?group=Queue',
  '/domains/new',
  '/domains/example.com',
  '/domains/example.com/remove',
  '/operators',
  '/operators/h.berg',
  '/changes',
  '/lists',
  '/rules',
  '/rules?q=gtube',
  '/rules/own',
  '/rules/own/GTUBE',
  '/rules/maps',
  '/rules/maps/own',
  '/rules/yara/own',
  '/conflicts',
  '/cluster',
  '/cluster/leave',
  `/cluster/nodes/${nodeId('mx2')}/remove`,
  '/account',
  '/live?at=overview',
  '/live?at=cluster',
  '/live?at=quarantine&seen=none',
  '/live?at=queue&seen=7',
]

const NEW_PASSWORD = 'another long enough sentence'

const FORMS = (
  place: World,
): readonly (readonly [path: string, form: Record<string, string>])[] => [
  [`/messages/${HELD(place)}/release`, {}],
  [`/messages/${HELD(place)}/delete`, {}],
  ['/quarantine/bulk', { act: 'release', mid: HELD(place) }],
  ['/queue/retry', {}],
  [`/queue/${WAITING(place)}/retry`, {}],
  [`/queue/${WAITING(place)}/drop`, { bounce: 'yes' }],
  ['/settings', { group: 'Policy', 'policy.hold': '9' }],
  ['/domains/new', { name: 'new.example', hops: '', hold: '', reject: '' }],
  ['/domains/example.com', { hops: 'smtp://a.example:25', hold: '', reject: '' }],
  ['/domains/example.com/remove', {}],
  ['/operators', { name: 'new', role: 'viewer', password: NEW_PASSWORD, again: NEW_PASSWORD }],
  ['/operators/h.berg/password', { password: NEW_PASSWORD, again: NEW_PASSWORD }],
  ['/operators/h.berg/remove', {}],
  ['/cluster/invitations/pj1_open/revoke', {}],
  [`/cluster/nodes/${nodeId('mx2')}/drain`, {}],
  [`/cluster/nodes/${nodeId('mx2')}/undrain`, {}],
  ['/cluster/leave', { name: 'mx1' }],
  ['/conflicts/keep', { key: 'setting/policy.hold', side: 'theirs' }],
  ['/lists/add', { list: 'block', kind: 'ip', value: '192.0.2.9' }],
  ['/lists/remove', { list: 'allow', kind: 'ip', value: '192.0.2.0/24' }],
  ['/lists/lift', { network: '192.0.2.66' }],
  ['/tokens/t0/remove', {}],
]

/** Forms whose answer holds what is shown once, so it cannot be an address to go to. */
const SHOWING: readonly (readonly [path: string, form: Record<string, string>])[] = [
  ['/cluster/invite', { minutes: '30', uses: '2', name: '' }],
  [`/cluster/nodes/${nodeId('mx3')}/remove`, { name: 'mx3' }],
  ['/tokens', { name: 'ci', role: 'viewer', days: '' }],
]

describe('routes by role', () => {
  test('without login every page sends to the sign-in and every script gets 401', async () => {
    const place = world()
    for (const path of PAGES(place)) {
      const answer = await ask(place, path)
      expect([path, answer.status]).toEqual([path, 303])
      expect(answer.headers.get('location')).toStartWith('/login')
      expect(await answer.text()).toBe('')
    }
    for (const route of apiRoutes(site(place)).filter(({ open }) => open !== true)) {
      const path = `/api/v1${route.path.replace(/:\w+/, 'x')}`
      const answer = await ask(place, path, {
        method: route.method,
        ...(route.method === 'GET' ? {} : { json: {} }),
      })
      expect([path, route.method, answer.status]).toEqual([path, route.method, 401])
      expect(await answer.json()).toMatchObject({ error: { code: 'unauthenticated' } })
    }
    const byHtmx = await ask(place, '/quarantine', { headers: { 'hx-request': 'true' } })
    expect([byHtmx.status, byHtmx.headers.get('hx-redirect')]).toEqual([401, '/login'])
  })

  test('without token no form and no script changes anything', async () => {
    const place = world()
    const session = await signIn(place)
    for (const [path, form] of [...FORMS(place), ...SHOWING]) {
      const answer = await ask(place, path, { session, form, bare: true })
      expect([path, answer.status]).toEqual([path, 403])
      const wrong = await ask(place, path, { session: { ...session, csrf: 'f'.repeat(64) }, form })
      expect([path, wrong.status]).toEqual([path, 403])
    }
    for (const route of apiRoutes(site(place)).filter(
      (one) => one.method !== 'GET' && one.open !== true,
    )) {
      const path = `/api/v1${route.path.replace(/:\w+/, 'x')}`
      const answer = await ask(place, path, { method: route.method, session, json: {}, bare: true })
      expect([path, answer.status]).toEqual([path, 403])
    }
    expect(place.admin.calls).toEqual([])
  })

  test('the token of another session is worth nothing', async () => {
    const place = world()
    const [mine, theirs] = [await signIn(place), await signIn(place, 'h.berg')]
    const form = { act: 'release', mid: HELD(place) }
    const session = { cookie: mine.cookie, csrf: theirs.csrf }
    expect((await ask(place, '/quarantine/bulk', { session, form })).status).toBe(403)
    expect(place.admin.calls).toEqual([])
  })

  test('an admin sees every page and every form acts', async () => {
    for (const path of PAGES(world())) {
      const place = world()
      const session = await signIn(place)
      const answer = await ask(
        place,
        path.replace(/01[0-9a-z]{24}/, (id) => sameMail(id, path, place)),
        { session },
      )
      expect([path, answer.status]).toEqual([path, 200])
    }
    for (const [i, [first]] of FORMS(world()).entries()) {
      const place = world()
      const session = await signIn(place)
      const [path, form] = FORMS(place)[i] ?? ['', {}]
      const answer = await ask(place, path, { session, form })
      expect([first.replace(/01[0-9a-z]{24}/, ''), answer.status]).toEqual([
        path.replace(/01[0-9a-z]{24}/, ''),
        303,
      ])
      expect([path, place.admin.calls.length]).toEqual([path, 1])
    }
    for (const [path, form] of SHOWING) {
      const place = world()
      const session = await signIn(place)
      const answer = await ask(place, path, { session, form })
      expect([path, answer.status, place.admin.calls.length]).toEqual([path, 200, 1])
    }
  })

  test('a viewer sees every page without a button that acts, and no form acts', async () => {
    const place = world()
    const session = await signIn(place, 'h.berg')
    for (const path of [
      '/',
      '/messages',
      '/quarantine',
      '/queue',
      '/settings',
      '/operators',
      '/changes',
      '/lists',
      '/conflicts',
      '/cluster',
      `/messages/${HELD(place)}`,
    ]) {
      const answer = await ask(place, path, { session })
      expect([path, answer.status]).toEqual([path, 200])
      const forms = [...(await answer.text()).matchAll(/method="post" action="([^"]+)"/g)].map(
        ([, to]) => to,
      )
      const acting = forms.filter(
        (to) => !['/theme', '/logout', '/settings'].includes(to ?? '') && to !== '/quarantine/bulk',
      )
      expect([path, ...acting]).toEqual([path])
    }
    for (const [path, form] of [...FORMS(place), ...SHOWING]) {
      const answer = await ask(place, path, { session, form })
      expect([path, answer.status]).toEqual([path, 403])
    }
    for (const route of apiRoutes(site(place)).filter(
      (one) => one.method !== 'GET' && one.open !== true,
    )) {
      if (route.path === '/logout' || route.path.endsWith('/password')) continue
      const path = `/api/v1${route.path.replace(/:\w+/, 'x')}`
      const answer = await ask(place, path, { method: route.method, session, json: {} })
      expect([path, answer.status]).toEqual([path, 403])
    }
    expect(place.admin.calls).toEqual([])
  })

  test('a viewer changes the own password, and the old session ends', async () => {
    const place = world()
    const session = await signIn(place, 'h.berg')
    const form = { old: PASSWORD, password: NEW_PASSWORD, again: NEW_PASSWORD }
    const wrong = await ask(place, '/account/password', {
      session,
      form: { ...form, old: 'guess' },
    })
    expect(wrong.status).toBe(422)
    const answer = await ask(place, '/account/password', { session, form })
    expect(answer.status).toBe(303)
    expect((await ask(place, '/', { session })).status).toBe(303)
    const cookie = (answer.headers.get('set-cookie') ?? '').split(';')[0] ?? ''
    expect((await ask(place, '/', { session: { cookie, csrf: '' } })).status).toBe(200)
  })

  test('the control socket needs no login and no token, and acts as cli', async () => {
    const place = world()
    const id = HELD(place)
    const answer = await ask(place, `/api/v1/quarantine/${id}/release`, {
      method: 'POST',
      client: SOCKET,
    })
    expect(answer.status).toBe(200)
    expect(place.admin.calls[0]).toStartWith(`cli: release ${id}`)
  })
})

/** The same mail in another world, whose ids differ. */
function sameMail(_: string, path: string, place: World): string {
  return path.startsWith('/queue') || path.includes('deferred') ? WAITING(place) : HELD(place)
}

function site(place: World) {
  const guard = new Guard({ admin: place.admin, secure: false })
  // The routes are looked at, never run.
  return { admin: place.admin, clock: system, guard }
}

describe('forgery and cookies', () => {
  test('a page of another site may not even sign somebody in', async () => {
    const place = world()
    const form = { name: 'a.ruiz', password: PASSWORD }
    for (const headers of [
      { origin: 'https://evil.example' },
      { origin: 'null' },
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site', origin: 'http://localhost' },
    ]) {
      const answer = await ask(place, '/login', { form, headers })
      expect([headers, answer.status]).toEqual([headers, 403])
      expect(answer.headers.get('set-cookie')).toBeNull()
    }
    const own = await ask(place, '/login', {
      form,
      headers: { origin: 'http://localhost', 'sec-fetch-site': 'same-origin' },
    })
    expect(own.status).toBe(303)
  })

  test('the cookie is HttpOnly, SameSite=Strict, and bound to the host over https', async () => {
    for (const [secure, name] of [
      [true, '__Host-postern='],
      [false, 'postern='],
    ] as const) {
      const place = world({ secure })
      const answer = await ask(place, '/login', { form: { name: 'a.ruiz', password: PASSWORD } })
      const cookie = answer.headers.get('set-cookie') ?? ''
      expect(cookie).toStartWith(name)
      expect(cookie).toContain('; HttpOnly; SameSite=Strict')
      expect(cookie).toContain('; Path=/')
      expect(cookie.includes('; Secure')).toBe(secure)
      expect(cookie).not.toContain('Domain')
    }
  })

  test('five wrong passwords lock, in words and with 429', async () => {
    const place = world()
    for (let i = 0; i < 5; i += 1) {
      const answer = await ask(place, '/login', { form: { name: 'a.ruiz', password: 'guess' } })
      expect(answer.status).toBe(401)
    }
    const answer = await ask(place, '/login', { form: { name: 'a.ruiz', password: PASSWORD } })
    expect(answer.status).toBe(429)
    expect(await answer.text()).toContain('Wait 5 min')
    const json = await ask(place, '/api/v1/login', { json: { name: 'a.ruiz', password: PASSWORD } })
    expect([json.status, ((await json.json()) as { error: { code: string } }).error.code]).toEqual([
      429,
      'locked',
    ])
  })

  test('after the sign-in the browser stays on this host', async () => {
    const place = world()
    for (const [next, to] of [
      ['/messages?q=a', '/messages?q=a'],
      ['//evil.example/', '/'],
      ['/\\evil.example', '/'],
      ['https://evil.example/', '/'],
      ['javascript:alert(1)', '/'],
    ] as const) {
      const answer = await ask(place, '/login', {
        form: { name: 'a.ruiz', password: PASSWORD, next },
      })
      expect([next, answer.headers.get('location')]).toEqual([next, to])
    }
    expect(safePath('/\t/evil.example', '/')).not.toContain('//')
  })

  test('signing out ends the session', async () => {
    const place = world()
    const session = await signIn(place)
    expect((await ask(place, '/logout', { session, form: {} })).status).toBe(303)
    expect((await ask(place, '/', { session })).status).toBe(303)
  })
})

describe('what is refused', () => {
  test('a body above 1 MB and a form above 1000 fields', async () => {
    const place = world()
    const session = await signIn(place)
    const large = await ask(place, '/settings', { session, form: { a: 'x'.repeat(1_100_000) } })
    expect(large.status).toBe(400)
    const many = Object.fromEntries(Array.from({ length: 1_001 }, (_, i) => [`f${i}`, '1']))
    expect((await ask(place, '/settings', { session, form: many })).status).toBe(400)
    expect(place.admin.calls).toEqual([])
  })

  test('JSON that cannot be read is not taken for an empty wish', async () => {
    const place = world()
    const session = await signIn(place)
    const path = `/api/v1/quarantine/${HELD(place)}/release`
    const headers = {
      cookie: session.cookie,
      'x-csrf-token': session.csrf,
      'content-type': 'application/json',
    }
    for (const body of ['{"recipient":', '[]', '"x"', 'recipient=x', '7', '{"recipient":7}']) {
      const request = new Request(`http://localhost${path}`, { method: 'POST', headers, body })
      expect([body, (await place.web.handle(request, OUTSIDE)).status]).toEqual([body, 400])
    }
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
    ]) {
      const request = new Request(`http://localhost${path}`, {
        method: 'POST',
        headers: { ...headers, 'content-type': type },
        body: '{}',
      })
      expect([type, (await place.web.handle(request, OUTSIDE)).status]).toEqual([type, 400])
    }
    expect(place.admin.calls).toEqual([])
  })

  test('an unknown mail, address or domain is 404, a second release 409, a wrong value names its field', async () => {
    const place = world()
    const session = await signIn(place)
    for (const path of [
      '/messages/nothing',
      '/api/v1/trace/nothing',
      '/nowhere',
      '/api/v1/nowhere',
      '/domains/no.example',
      '/queue/nothing/drop',
    ]) {
      expect([path, (await ask(place, path, { session })).status]).toEqual([path, 404])
    }
    const release = `/api/v1/quarantine/${HELD(place)}/release`
    expect((await ask(place, release, { session, method: 'POST' })).status).toBe(200)
    const again = await ask(place, release, { session, method: 'POST' })
    expect(again.status).toBe(409)
    expect(await again.json()).toMatchObject({
      error: { code: 'conflict', message: expect.stringContaining('a.ruiz') },
    })
    const page = await ask(place, `/messages/${HELD(place)}/release`, { session, form: {} })
    expect(page.status).toBe(409)
    expect(await page.text()).toContain('Already released by a.ruiz')
    const setting = await ask(place, '/api/v1/settings/policy.hold', {
      session,
      method: 'PUT',
      json: { value: 'much' },
    })
    expect([
      setting.status,
      ((await setting.json()) as { error: { field: string } }).error.field,
    ]).toEqual([400, 'policy.hold'])
    const limit = await ask(place, '/api/v1/trace?limit=1001', { session })
    expect([
      limit.status,
      ((await limit.json()) as { error: { field: string } }).error.field,
    ]).toEqual([400, 'limit'])
    const missing = await ask(place, '/api/v1/settings/policy.hold', {
      session,
      method: 'PUT',
      json: {},
    })
    expect([
      missing.status,
      ((await missing.json()) as { error: { field: string } }).error.field,
    ]).toEqual([400, 'value'])
  })

  test('a bug is 500, is logged, and says nothing of the inside', async () => {
    const place = world()
    const session = await signIn(place)
    place.admin.broken = true
    for (const path of ['/', '/quarantine', '/api/v1/status']) {
      const answer = await ask(place, path, { session })
      expect([path, answer.status]).toEqual([path, 500])
      expect(await answer.text()).not.toContain('/var/lib')
    }
    expect(place.log()).toContain('"event":"web.failed"')
    expect(place.log()).toContain('/var/lib')
  })
})

describe('headers', () => {
  test('every answer carries the policy of pages, nosniff, no referrer, no store', async () => {
    const place = world()
    const session = await signIn(place)
    for (const path of [
      '/',
      '/login',
      '/quarantine',
      '/nowhere',
      '/api/v1/status',
      '/livez',
      `/messages/${HELD(place)}`,
    ]) {
      const { headers } = await ask(place, path, { session })
      expect([path, headers.get('content-security-policy')]).toEqual([path, PAGE_POLICY])
      expect(headers.get('x-content-type-options')).toBe('nosniff')
      expect(headers.get('referrer-policy')).toBe('no-referrer')
      expect(headers.get('cross-origin-opener-policy')).toBe('same-origin')
      expect([path, headers.get('cache-control')]).toEqual([path, 'no-store'])
    }
    expect(PAGE_POLICY).not.toContain('unsafe')
  })

  test('the mail is framed without scripts and downloaded as bytes', async () => {
    const place = world()
    const session = await signIn(place)
    const frame = await ask(place, `/messages/${HELD(place)}/frame`, { session })
    const policy = frame.headers.get('content-security-policy') ?? ''
    expect(policy).toStartWith(
      "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    )
    expect(policy).not.toContain('allow-')
    for (const path of [
      `/messages/${HELD(place)}/source`,
      `/api/v1/quarantine/${HELD(place)}/source`,
    ]) {
      const { headers } = await ask(place, path, { session })
      expect(headers.get('content-type')).toBe('application/octet-stream')
      expect(headers.get('content-disposition')).toMatch(
        /^attachment; filename="[0-9a-z]{26}\.eml"$/,
      )
      expect(headers.get('x-content-type-options')).toBe('nosniff')
    }
  })

  test('files are named by their content and may be kept for ever; other names are not there', async () => {
    const place = world()
    const body = await (await ask(place, '/login')).text()
    const paths = [...body.matchAll(/(?:href|src)="(\/assets\/[^"]+)"/g)].map(
      ([, path]) => path ?? '',
    )
    expect(paths.length).toBe(5)
    for (const path of paths) {
      const answer = await ask(place, path)
      expect([path, answer.status]).toEqual([path, 200])
      expect(answer.headers.get('cache-control')).toContain('immutable')
      expect((await answer.text()).length).toBeGreaterThan(100)
    }
    for (const path of [
      '/assets/app.css',
      '/assets/..%2fserver.ts',
      '/assets/app.0000000000000000.css',
    ]) {
      expect([path, (await ask(place, path)).status]).toEqual([path, 404])
    }
  })

  test('HEAD gives the headers of GET and no body', async () => {
    const place = world()
    const answer = await ask(place, '/livez', { method: 'HEAD' })
    expect([answer.status, await answer.text()]).toEqual([200, ''])
  })
})

describe('for machines', () => {
  test('/livez and /readyz need no login; not ready is 503 with the reason', async () => {
    const well = world()
    expect((await ask(well, '/livez')).status).toBe(200)
    expect((await ask(well, '/readyz')).status).toBe(200)
    const ill = world({ ready: false })
    expect((await ask(ill, '/livez')).status).toBe(200)
    const answer = await ask(ill, '/readyz')
    expect([answer.status, await answer.text()]).toEqual([
      503,
      expect.stringContaining('less free space'),
    ])
  })

  test('/metrics is for loopback, the control socket and operators', async () => {
    const place = world()
    const status = async (about: Ask) => (await ask(place, '/metrics', about)).status
    expect(await status({})).toBe(401)
    expect(await status({ client: { ip: '127.0.0.1', trusted: false } })).toBe(200)
    expect(await status({ client: { ip: '::1', trusted: false } })).toBe(200)
    expect(await status({ client: { ip: '127.0.0.1.evil', trusted: false } })).toBe(401)
    expect(await status({ client: SOCKET })).toBe(200)
    expect(await status({ session: await signIn(place) })).toBe(200)
  })
})

describe('API', () => {
  /** What to call for each documented GET, and what it must give besides its schema. */
  test('every answer has the shape that OpenAPI documents', async () => {
    const place = world()
    const session = await signIn(place)
    await ask(place, '/api/v1/settings/policy.hold', { session, method: 'PUT', json: { value: 9 } })
    const values: Readonly<Record<string, string>> = {
      key: 'policy.hold',
      name: 'example.com',
      list: 'allow',
    }
    for (const route of apiRoutes(site(place)).filter(({ method }) => method === 'GET')) {
      const path = route.path.replace(/:(\w+)/, (_, name: string) =>
        name === 'id'
          ? route.path.startsWith('/queue')
            ? WAITING(place)
            : HELD(place)
          : (values[name] ?? ''),
      )
      const answer = await ask(place, `/api/v1${path}`, { session })
      expect([path, answer.status]).toEqual([path, 200])
      if (route.answer !== null) mustMatch(route.answer, await answer.json(), path)
    }
  })

  test('every change has the shape that OpenAPI documents', async () => {
    const bodies: Readonly<Record<string, unknown>> = {
      'POST /queue/:id/drop': { bounce: true },
      'PUT /domains/:name': { nextHops: ['lmtp://a.example:24'], recipients: ['info'] },
      'PUT /settings/:key': { value: '9' },
      'POST /operators': { name: 'new', password: NEW_PASSWORD },
      'PUT /operators/:name/password': { password: NEW_PASSWORD },
      'POST /login': { name: 'a.ruiz', password: PASSWORD },
      'POST /probe': { hop: 'smtp://a.example:25' },
      'POST /cluster/join': { token: 'pj1_other' },
      'POST /invitations': { minutes: 30, uses: 2, name: null },
      'POST /conflicts/keep': { key: 'setting/policy.hold', side: 'theirs' },
      'POST /tokens': { name: 'ci', role: 'admin', days: 90 },
      'POST /lists/:list': { kind: 'ip', value: '192.0.2.9', note: 'why' },
      'PUT /rules/:name': { score: 2, look: { kind: 'body', pattern: 'x' } },
      'PUT /scores/:name': { score: 2 },
      'POST /domains/:name/dkim': { selector: 's2027', algorithm: 'rsa' },
      'POST /learning': { as: 'spam', source: 'RnJvbTogYUBiLmV4YW1wbGUNCg0KeA0K' },
      'PUT /maps/:name': { entries: ['a.example'] },
      'PUT /yara/:name': { source: 'rule x { condition: false }' },
    }
    const changing = apiRoutes(site(world())).filter(
      ({ method, path }) => method !== 'GET' && path !== '/setup',
    )
    expect(changing.length).toBeGreaterThan(12)
    for (const route of changing) {
      const place = world()
      const session = await signIn(place)
      await ask(place, '/api/v1/settings/policy.reject', {
        session,
        method: 'PUT',
        json: { value: 16 },
      })
      const path = route.path
        .replace('/queue/:id', `/queue/${WAITING(place)}`)
        .replace('/quarantine/:id', `/quarantine/${HELD(place)}`)
        .replace('/changes/:id', '/changes/1')
        .replace('/operators/:name', '/operators/h.berg')
        .replace('/invitations/:id', '/invitations/pj1_open')
        .replace('/tokens/:id', '/tokens/t0')
        .replace(':network', '192.0.2.66')
        .replace('/lists/:list/:kind/:value', '/lists/allow/ip/192.0.2.0%2F24')
        .replace(':list', 'block')
        .replace(':node', 'mx2')
        .replace(':selector', 's2026')
        .replace(/^\/(rules|scores)\/:name/, '/$1/GTUBE')
        .replace(/^\/(maps|yara)\/:name/, '/$1/own')
        .replace(':name', 'example.com')
        .replace(':key', 'policy.hold')
      const json = bodies[`${route.method} ${route.path}`] ?? {}
      const answer = await ask(place, `/api/v1${path}`, { session, method: route.method, json })
      expect([route.method, path, answer.status]).toEqual([route.method, path, 200])
      if (route.answer !== null) mustMatch(route.answer, await answer.json(), path)
    }
  })

  test('the rows have the keys of the contract', async () => {
    const place = world()
    const rows = async (path: string) => {
      const answer = await ask(place, `/api/v1${path}`, { client: SOCKET })
      return ((await answer.json()) as { rows: Record<string, unknown>[] }).rows
    }
    const [held] = await rows('/quarantine')
    for (const key of [
      'id',
      'node',
      'sender',
      'recipients',
      'subject',
      'rules',
      'score',
      'heldAt',
    ]) {
      expect(held).toHaveProperty(key)
    }
    expect(String(held?.['heldAt'])).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    const [queued] = await rows('/queue')
    for (const key of ['id', 'node', 'sender', 'state', 'recipients'])
      expect(queued).toHaveProperty(key)
    const [recipient] = (queued?.['recipients'] ?? []) as Record<string, unknown>[]
    for (const key of ['address', 'attempts', 'nextTry', 'lastReply'])
      expect(recipient).toHaveProperty(key)
    const [traced] = await rows('/trace')
    for (const key of [
      'id',
      'node',
      'at',
      'sender',
      'recipient',
      'subject',
      'accept',
      'delivery',
      'reply',
    ]) {
      expect(traced).toHaveProperty(key)
    }
    expect(await rows('/domains')).toEqual([
      {
        name: 'example.com',
        nextHops: ['smtp://exchange.example.com:25'],
        recipients: null,
        hold: null,
        reject: null,
        enforce: null,
      },
    ])
    const status = (await (
      await ask(place, '/api/v1/status', { client: SOCKET })
    ).json()) as Record<string, unknown>
    for (const key of ['node', 'name', 'version', 'ready', 'webPin', 'queue', 'held', 'nodes'])
      expect(status).toHaveProperty(key)
  })

  test('a list is cut at the limit and goes on with its cursor, each row once', async () => {
    const place = world()
    const seen: string[] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const more: string = cursor === '' ? '' : `&cursor=${cursor}`
      const answer = await ask(place, `/api/v1/trace?limit=4${more}`, { client: SOCKET })
      const page = (await answer.json()) as {
        rows: { id: string; recipient: string }[]
        cursor: string | null
        total: number
      }
      expect(page.rows.length).toBeLessThanOrEqual(4)
      seen.push(...page.rows.map(({ id, recipient }) => `${id} ${recipient}`))
      cursor = page.cursor
      if (cursor === null) expect(seen.length).toBe(page.total)
    }
    expect(new Set(seen).size).toBe(seen.length)
  })

  test('OpenAPI 3.1 names every route, its parameters and its refusals', async () => {
    const place = world()
    const answer = await ask(place, '/api/v1/openapi.json')
    expect(answer.status).toBe(200)
    type Operation = {
      parameters: { name: string; in: string }[]
      responses: Record<string, unknown>
      operationId: string
    }
    const document = (await answer.json()) as {
      openapi: string
      paths: Record<string, Record<string, Operation>>
    }
    expect(document.openapi).toStartWith('3.1')
    const ids = new Set<string>()
    for (const { method, path } of apiRoutes(site(place))) {
      const operation =
        document.paths[`/api/v1${path.replace(/:(\w+)/g, '{$1}')}`]?.[method.toLowerCase()]
      expect([method, path, operation === undefined]).toEqual([method, path, false])
      const named =
        operation?.parameters.filter((one) => one.in === 'path').map(({ name }) => `:${name}`) ?? []
      expect(named).toEqual(path.match(/:\w+/g) ?? [])
      expect(Object.keys(operation?.responses ?? {})).toContain('200')
      ids.add(operation?.operationId ?? '')
    }
    expect(ids.size).toBe(apiRoutes(site(place)).length)
  })
})

/** Fails with the first complaint when `value` does not match. */
function mustMatch(schema: TSchema, value: unknown, path: string): void {
  const check = getSchemaValidator(schema, { dynamic: true })
  const [complaint] = check.Check(value) ? [] : [...check.Errors(value)]
  expect([path, complaint?.path, complaint?.message]).toEqual([path, undefined, undefined])
}

describe('set-up', () => {
  test('every page leads to the set-up, a wrong code is refused, and it closes for good', async () => {
    const place = world({ setup: true })
    expect((await ask(place, '/login')).headers.get('location')).toBe('/setup')
    expect((await ask(place, '/setup?code=wrong')).status).toBe(403)
    expect(await (await ask(place, `/setup?code=${CODE}`)).text()).toContain('Which domain')
    const forged = { name: 'eve', password: NEW_PASSWORD, again: NEW_PASSWORD, code: 'wrong' }
    expect((await ask(place, '/setup/operator', { form: forged })).status).toBe(403)
    const domain = {
      code: CODE,
      domain: 'clinic.example',
      hop: 'smtp://mail.clinic.example:25',
      act: 'save',
    }
    expect(
      (await ask(place, '/setup/domain', { form: { ...domain, domain: 'not a name' } })).status,
    ).toBe(422)
    const silent = await ask(place, '/setup/domain', {
      form: { ...domain, hop: 'smtp://silent.example:25' },
    })
    expect(await silent.text()).toContain('does not take mail now')
    expect(place.admin.domains()).toEqual([])
    expect((await ask(place, '/setup/domain', { form: domain })).status).toBe(303)
    expect(place.admin.domains().map(({ name }) => name)).toContain('clinic.example')
    const operator = { code: CODE, name: 'a.ruiz', password: NEW_PASSWORD, again: NEW_PASSWORD }
    expect(
      (await ask(place, '/setup/operator', { form: { ...operator, again: 'else' } })).status,
    ).toBe(422)
    const done = await ask(place, '/setup/operator', { form: operator })
    expect([done.status, done.headers.get('location')]).toEqual([303, '/'])
    expect(done.headers.get('set-cookie')).toContain('postern=')
    for (const path of [`/setup?code=${CODE}`, '/setup']) {
      expect((await ask(place, path)).headers.get('location')).toBe('/login')
    }
    expect(
      (await ask(place, '/setup/operator', { form: { ...operator, name: 'eve' } })).headers.get(
        'location',
      ),
    ).toBe('/login')
    expect(
      (
        await ask(place, '/api/v1/setup', {
          json: { code: CODE, name: 'eve', password: NEW_PASSWORD },
        })
      ).status,
    ).toBe(409)
  })
})

describe('pages', () => {
  test('what strangers wrote is text on every page', async () => {
    const evil = '"><img src=x onerror=alert(1)><hx-partial hx-target="body">'
    const mail: Mail = {
      sender: `${evil}@evil.example`,
      from: evil,
      recipients: [`${evil}@example.com`],
      subject: evil,
      findings: [{ rule: evil, score: 9, evidence: evil }],
      unknown: evil,
      state: 'held',
      text: evil,
      headers: [{ name: evil, value: evil }],
      attachments: [evil],
      minutesAgo: 1,
    }
    const place = world({
      mails: [
        mail,
        { ...mail, state: 'deferred', reply: evil },
        { ...mail, state: 'refused', reply: evil },
      ],
    })
    const session = await signIn(place)
    for (const path of PAGES(place)) {
      const body = await (await ask(place, path, { session })).text()
      if (path.endsWith('/source')) continue
      expect([path, body.includes('<img src=x')]).toEqual([path, false])
      // Only /live speaks to htmx in parts, and says nothing of a mail.
      if (!path.startsWith('/live')) expect([path, /<hx-/i.test(body)]).toEqual([path, false])
    }
    const said = await ask(place, `/messages/${HELD(place)}/release`, { session, form: {} })
    const toast = await (await ask(place, said.headers.get('location') ?? '', { session })).text()
    expect(toast).toContain('Released “&quot;&gt;&lt;img')
  })

  test('hold and reject may move together past each other; a wrong one stands at its field', async () => {
    const place = world()
    const session = await signIn(place)
    const form = {
      group: 'Policy',
      'policy.hold': '20',
      'policy.reject': '30',
      'inspect.budget': '30',
      'inspect.inspectors': ['gtube', 'eicar', 'headers', 'attachments'],
    }
    expect((await ask(place, '/settings', { session, form })).status).toBe(303)
    expect([
      place.admin.setting('policy.hold').value,
      place.admin.setting('policy.reject').value,
    ]).toEqual([20, 30])
    const wrong = await ask(place, '/settings', { session, form: { ...form, 'policy.hold': '40' } })
    expect(wrong.status).toBe(422)
    const body = await wrong.text()
    expect(body).toContain('id="policy-hold-e"')
    expect(body).toContain('value="40"')
    expect(place.admin.setting('policy.hold').value).toBe(20)
    expect(place.admin.calls.length).toBeGreaterThan(0)
    expect(body).toContain('Hold from score: 20')
  })

  test('a form that changes nothing asks nothing of the node', async () => {
    const place = world()
    const session = await signIn(place)
    for (const group of ['Limits', 'Policy', 'Quarantine', 'Queue']) {
      const body = await (await ask(place, `/settings?group=${group}`, { session })).text()
      const form = formOf(body)
      expect((await ask(place, '/settings', { session, form: { ...form, group } })).status).toBe(
        303,
      )
    }
    expect(place.admin.calls).toEqual([])
  })

  test('boxes that the form did not show stay as they are', async () => {
    const place = world()
    const session = await signIn(place)
    const form = { group: 'Policy', 'policy.hold': '9' }
    await ask(place, '/settings', { session, form })
    expect(place.admin.calls).toEqual(['a.ruiz: setSetting policy.hold'])
    await ask(place, '/settings', { session, form: { ...form, shown: 'inspect.inspectors' } })
    expect(place.admin.setting('inspect.inspectors').value).toEqual([])
  })

  test('many are released at once, and the outcome is counted', async () => {
    const place = world()
    const session = await signIn(place)
    const ids = place.admin.kept
      .filter(({ mail }) => mail.state === 'held')
      .map(({ id }) => id as string)
    const form = { act: 'release', mid: [...ids, 'gone'], back: '/quarantine?q=a' }
    const answer = await ask(place, '/quarantine/bulk', { session, form })
    expect(answer.headers.get('location')).toBe('/quarantine?q=a')
    const body = await (await ask(place, '/quarantine', { session })).text()
    expect(body).toContain(`Released ${ids.length} mails, 1 was no longer held`)
    expect(body).toContain('Quarantine is empty')
  })

  test('deleting many asks first', async () => {
    const place = world()
    const session = await signIn(place)
    const id = HELD(place)
    const asked = await ask(place, '/quarantine/bulk', {
      session,
      form: { act: 'delete', mid: id },
    })
    expect([asked.status, place.admin.calls]).toEqual([200, []])
    expect(await asked.text()).toContain('Delete 1 mail?')
    await ask(place, '/quarantine/bulk', { session, form: { act: 'delete-now', mid: id } })
    expect(place.admin.calls.length).toBe(1)
  })

  test('a pasted id opens the mail at once', async () => {
    const place = world()
    const session = await signIn(place)
    const answer = await ask(place, `/messages?q=%20${HELD(place).toUpperCase()}%20`, { session })
    expect(answer.headers.get('location')).toBe(`/messages/${HELD(place)}`)
  })

  test('a mistake in the search is named and the rest is applied', async () => {
    const place = world()
    const session = await signIn(place)
    const body = await (await ask(place, '/messages?q=form%3Ax', { session })).text()
    expect(body).toContain('Part of the search is not used')
  })

  test('the theme is a cookie that the server writes into the page', async () => {
    const place = world()
    const answer = await ask(place, '/theme', { form: { theme: 'dark' } })
    expect(answer.headers.get('set-cookie')).toStartWith('theme=dark;')
    const body = await (await ask(place, '/login', { headers: { cookie: 'theme=dark' } })).text()
    expect(body).toContain('<html lang="en" data-theme="dark">')
    const other = await (
      await ask(place, '/login', { headers: { cookie: 'theme="><script>' } })
    ).text()
    expect(other).toContain('<html lang="en">')
  })

  test('html escapes every hole and passes only its own markup', () => {
    const evil = `<b>"'&`
    expect(
      html`<p title="${evil}">${evil}${html`<i>${1}</i>`}${null}${undefined}${false}</p>`.text,
    ).toBe('<p title="&lt;b&gt;&quot;&#x27;&amp;">&lt;b&gt;&quot;&#x27;&amp;<i>1</i></p>')
  })
})

const EVIL = '"><img src=x onerror=alert(1)><hx-partial hx-target="body">\r\revent: x'
const REMOVE = `/cluster/nodes/${nodeId('mx3')}/remove`

async function text(place: World, path: string, about: Ask = {}): Promise<string> {
  return await (await ask(place, path, about)).text()
}

describe('the nodes on every page', () => {
  test('a dead peer is a banner everywhere and an error page nowhere', async () => {
    const place = world()
    const session = await signIn(place)
    expect(await text(place, '/', { session })).toContain('<div class="stack" id="banner"></div>')
    place.admin.turn('mx3', 'dead')
    for (const path of PAGES(place)) {
      if (/\/(frame|source|peek)|^\/messages\/.*delete/.test(path)) continue
      const answer = await ask(place, path, { session })
      const body = await answer.text()
      expect([path, answer.status]).toEqual([path, 200])
      expect([path, body.includes('<b>mx3 does not answer</b>')]).toEqual([path, true])
      expect([path, body.includes('<span>2 of 3</span>')]).toEqual([path, true])
    }
  })

  test('suspect, draining and several dead are told in their own words; all well says nothing', async () => {
    const place = world({ nodes: ['mx1', 'mx2', 'mx3', 'mx4'] })
    const session = await signIn(place)
    const page = () => text(place, '/messages', { session })
    place.admin.turn('mx2', 'suspect')
    expect(await page()).toContain('<b>mx2 gives no answer</b>')
    place.admin.turn('mx2', 'draining')
    expect(await page()).toContain('<b>mx2 takes no new mail</b>')
    place.admin.turn('mx2', 'dead', { report: null })
    expect(await page()).toContain('What waits on it is not known.')
    place.admin.turn('mx3', 'dead')
    expect(await page()).toContain('<b>mx2, mx3 do not answer.</b>')
    for (const name of ['mx2', 'mx3']) place.admin.turn(name, 'evicted')
    expect(await page()).toContain('<div class="stack" id="banner"></div>')
    expect(await page()).toContain('<span>2 of 2</span>')
  })

  test('a node that has left says so and counts nobody', async () => {
    const place = world({ nodes: ['mx1', 'mx2'] })
    const session = await signIn(place)
    place.admin.turn('mx1', 'left')
    for (const path of ['/', '/cluster', '/settings']) {
      const answer = await ask(place, path, { session })
      const body = await answer.text()
      expect([path, answer.status]).toEqual([path, 200])
      expect(body).toContain('<b>This node has left its cluster.</b>')
      expect(body).not.toContain('1 of 1')
    }
    expect((await ask(place, '/cluster/leave', { session })).status).toBe(404)
  })

  test('a wrong clock says why, and settings, domains, lists and conflicts have no button', async () => {
    const place = world()
    const session = await signIn(place)
    const pages = ['/settings', '/domains/example.com', '/lists', '/conflicts', '/changes']
    await ask(place, '/settings', { session, form: { group: 'Policy', 'policy.hold': '9' } })
    const acting = async () => {
      const bodies = await Promise.all(pages.map((path) => text(place, path, { session })))
      return bodies.map(
        (body) =>
          [...body.matchAll(/<button class="btn[^"]*"[^>]*>(Save|Add|Keep \d|Undo|Remove)</g)]
            .length,
      )
    }
    for (const found of await acting()) expect(found).toBeGreaterThan(0)
    const message = `The clock is ${EVIL} ahead.`
    place.admin.alarmList.push({ kind: 'clock', message, advice: 'Set it by NTP.' })
    expect(await acting()).toEqual([0, 0, 0, 0, 0])
    const body = await text(place, '/settings', { session })
    expect(body).toContain('Set it by NTP.')
    expect(body).not.toContain('<img src=x')
  })
})

describe('the cluster page', () => {
  test('a node alone has no links and no count in the menu', async () => {
    const place = world({ nodes: ['mx1'] })
    const session = await signIn(place)
    const body = await text(place, '/cluster', { session })
    expect(body).toContain('Links begin with the second node.')
    expect(body).not.toContain('1 of 1')
  })

  test('a link is said as its row sees it: both ways, one way, UDP alone, not known', async () => {
    const place = world({ nodes: ['mx1', 'mx2'] })
    const session = await signIn(place)
    const link = { from: NODE, to: nodeId('mx2'), tcpMs: 0.42, udpMs: 0.31, trouble: null }
    const cell = async (more: object) => {
      place.admin.links = [{ ...link, tcp: true, udp: true, ...more }]
      const body = await text(place, '/cluster', { session })
      const matrix = body.slice(body.indexOf('class="matrix"'))
      const [, row = ''] = /<th scope="row">mx1<\/th>(.*?)<\/tr>/s.exec(matrix) ?? []
      return row
        .replace(/<[^>]+>/g, ' ')
        .replace(/\s+/g, ' ')
        .trim()
    }
    expect(await cell({})).toBe('– 0.4 ms UDP 0.3 ms')
    expect(await cell({ udp: false })).toBe('– 0.4 ms UDP silent')
    const trouble = 'It refused the connection.'
    expect(await cell({ tcp: false, trouble })).toBe(`– no link UDP 0.3 ms ${trouble}`)
    expect(await cell({ tcp: null, udp: null })).toBe('– not known not in reach')
    place.admin.links = []
    expect(await text(place, '/cluster', { session })).toContain('not known')
  })

  test('of a hundred nodes only what is wrong is listed', async () => {
    const nodes = Array.from({ length: 100 }, (_, i) => `mx${i + 1}`)
    const place = world({ nodes })
    const session = await signIn(place)
    expect(await text(place, '/cluster', { session })).toContain('All 9,900 links work')
    place.admin.turn('mx7', 'dead')
    const body = await text(place, '/cluster', { session })
    expect(body).toContain('and 98 alive')
    expect(body).toContain('9,702 of 9,900 links work')
    expect(body).not.toContain('class="matrix"')
  })

  test('an invitation is shown once, with its line; a wrong number stands at its field', async () => {
    const place = world()
    const session = await signIn(place)
    const form = { minutes: '30', uses: '2', name: '' }
    const body = await text(place, '/cluster/invite', { session, form })
    expect(body).toContain('--pinnedpubkey &#x27;sha256//')
    expect(body).toContain('postern join pj1_')
    expect(body).toContain('for 2 nodes')
    expect(await text(place, '/cluster', { session })).not.toContain('M9QXV4T0C5R6N1HBAWE3')
    for (const minutes of ['0', '1441', 'soon']) {
      const wrong = await ask(place, '/cluster/invite', { session, form: { ...form, minutes } })
      const said = await wrong.text()
      expect([minutes, wrong.status]).toEqual([minutes, 422])
      expect(said).toContain('id="minutes-e"')
      expect(said).toContain(`value="${minutes}"`)
    }
    expect(place.admin.tokens.length).toBe(2)
  })

  test('a node is removed when its name was typed, and the page says what to renew', async () => {
    const place = world()
    const session = await signIn(place)
    place.admin.turn('mx3', 'dead')
    const asked = await text(place, REMOVE, { session })
    expect(asked).toContain('<b>6 mails in its queue</b> and <b>6 held mails</b>')
    const wrong = await ask(place, REMOVE, { session, form: { name: 'mx2' } })
    expect([wrong.status, (await wrong.text()).includes('id="name-e"')]).toEqual([422, true])
    expect(place.admin.calls).toEqual([])
    const done = await text(place, REMOVE, { session, form: { name: ' mx3 ' } })
    expect(done).toContain('It had 6 held mails')
    expect(done).toContain('Passwords of next hops.')
    for (const about of [{ session }, { session, form: { name: 'mx3' } }])
      expect((await ask(place, REMOVE, about)).status).toBe(404)
  })

  test('leaving with mail is refused with the counts, and goes on when it is given up', async () => {
    const place = world()
    const session = await signIn(place)
    place.admin.refuses = new RefusalError('conflict', null, '4 mails wait here.', 'Drain first.')
    const form = { name: 'mx1' }
    const refused = await ask(place, '/cluster/leave', { session, form })
    const body = await refused.text()
    expect([refused.status, body.includes('4 mails wait here.')]).toEqual([409, true])
    expect(body).toContain('name="abandon"')
    const done = await ask(place, '/cluster/leave', { session, form: { ...form, abandon: 'yes' } })
    expect(done.status).toBe(303)
    expect(place.admin.calls.at(-1)).toBe('a.ruiz: leave true')
  })

  test('a node that went away while the button was pressed is a sentence, not an error', async () => {
    const place = world()
    const session = await signIn(place)
    place.admin.refuses = new RefusalError('unavailable', 'node', 'mx2 is away.', 'Try later.')
    const path = `/cluster/nodes/${nodeId('mx2')}/drain`
    expect((await ask(place, path, { session, form: {} })).status).toBe(303)
    expect(await text(place, '/cluster', { session })).toContain('mx2 is away. Try later.')
    const unknown = '/cluster/nodes/0000000000000000/drain'
    expect((await ask(place, unknown, { session, form: {} })).status).toBe(404)
  })
})

describe('the stream of the cluster page', () => {
  const decoder = new TextDecoder()

  /** Each drawing asks for the tokens once. */
  function countDrawings({ admin }: World): () => number {
    let drawings = 0
    const { invitations } = admin
    admin.invitations = () => {
      drawings += 1
      return invitations.call(admin)
    }
    return () => drawings
  }

  async function follow(place: World, session: Session) {
    const answer = await ask(place, '/events/cluster', { session })
    expect([answer.status, answer.headers.get('content-type')]).toEqual([
      200,
      'text/event-stream; charset=utf-8',
    ])
    const reader = answer.body?.getReader()
    if (reader === undefined) throw new Error('no body')
    const next = async () => {
      const { done, value } = await reader.read()
      return done ? null : decoder.decode(value)
    }
    return { next, leave: () => reader.cancel() }
  }

  test('it begins with everything, tells a change at once, and a beat when there is none', async () => {
    const clock = new ManualClock()
    const place = world({ clock })
    const { next } = await follow(place, await signIn(place))
    const first = await next()
    for (const id of ['nav', 'peers', 'banner', 'nodes', 'links', 'happened', 'tokens'])
      expect(first).toContain(`hx-target="#${id}"`)
    clock.advance(8_000)
    expect(await next()).toBe(': \n\n')
    clock.advance(1_000)
    place.admin.turn('mx3', 'dead')
    expect(await next()).toContain('mx3 does not answer')
    // The time since then is a part of the page.
    clock.advance(8_000)
    expect(await next()).toContain('dead, 7 s')
  })

  test('a storm of changes is two messages, and the last state is in the second', async () => {
    const clock = new ManualClock()
    const place = world({ clock })
    const { next } = await follow(place, await signIn(place))
    await next()
    clock.advance(1_000)
    const lag = (lagRows: number) => place.admin.turn('mx2', 'alive', { lagRows, lagMs: 500 })
    lag(1)
    expect(await next()).toContain('1 row, 0.5 s')
    // The reader waits, so only the clock holds the next one back.
    const later = next()
    const drawn = countDrawings(place)
    for (let rows = 2; rows <= 1_000; rows += 1) lag(rows)
    expect(drawn()).toBe(0)
    clock.advance(500)
    expect(await later).toContain('1,000 rows, 0.5 s')
    expect(drawn()).toBe(1)
    // What was told and changed nothing is drawn, and not sent.
    clock.advance(500)
    place.admin.tell()
    clock.advance(8_000)
    expect(await next()).toBe(': \n\n')
  })

  test('it ends when the reader goes, when the operator is signed out, and with the web', async () => {
    const clock = new ManualClock()
    const place = world({ clock })
    const [mine, theirs] = [await signIn(place), await signIn(place, 'h.berg')]
    const [one, two, three] = [
      await follow(place, mine),
      await follow(place, theirs),
      await follow(place, mine),
    ]
    expect(place.admin.listeners.size).toBe(3)
    await one.leave()
    expect(place.admin.listeners.size).toBe(2)
    await two.next()
    await ask(place, '/logout', { session: theirs, form: {} })
    clock.advance(8_000)
    expect(await two.next()).toBeNull()
    await three.next()
    place.web.close()
    expect(await three.next()).toBeNull()
    expect(place.admin.listeners.size).toBe(0)
  })

  test('beyond a hundred a page is told all and to ask again, and nothing is kept for it', async () => {
    const place = world({ clock: new ManualClock() })
    const session = await signIn(place)
    const open = []
    for (let i = 0; i < 100; i += 1) open.push(await follow(place, session))
    const { next } = await follow(place, session)
    expect(await next()).toStartWith('retry: 10000\ndata: ')
    expect(await next()).toBeNull()
    expect(place.admin.listeners.size).toBe(100)
    await open[0]?.leave()
    expect(await (await follow(place, session)).next()).toStartWith('data: ')
    place.web.close()
  })

  test('HEAD keeps nothing open; a stranger gets nothing; a viewer gets no button', async () => {
    const place = world({ clock: new ManualClock() })
    const session = await signIn(place, 'h.berg')
    await ask(place, '/events/cluster', { session, method: 'HEAD' })
    expect(place.admin.listeners.size).toBe(0)
    expect((await ask(place, '/events/cluster')).status).toBe(303)
    const { next } = await follow(place, session)
    expect(await next()).not.toContain('<form')
    place.web.close()
  })

  test('a name with line ends in it begins no field of the stream', async () => {
    const place = world({ clock: new ManualClock() })
    place.admin.turn('mx2', 'alive', { name: EVIL })
    const { next } = await follow(place, await signIn(place))
    const lines = (await next())?.split(/\r\n|\r|\n/) ?? []
    expect(lines.length).toBeGreaterThan(10)
    expect(lines.filter((line) => line !== '' && !line.startsWith('data: '))).toEqual([])
    place.web.close()
  })

  test('a drawing that fails ends the stream, is logged, and harms nobody who tells of changes', async () => {
    const clock = new ManualClock()
    const place = world({ clock })
    const { next } = await follow(place, await signIn(place))
    await next()
    place.admin.broken = true
    clock.advance(1_000)
    place.admin.tell()
    expect(await next()).toBeNull()
    expect(place.log()).toContain('"path":"/events"')
    expect(place.admin.listeners.size).toBe(0)
  })
})

describe('conflicts', () => {
  test('both values stand where the setting is edited, and one is kept', async () => {
    const place = world()
    const session = await signIn(place)
    for (const path of ['/settings', '/conflicts']) {
      const body = await text(place, path, { session })
      expect(body).toContain('“Hold from score” has two values')
      expect(body).toContain(
        '<span class="val">7</span><p>In force now. Set by <b>a.ruiz</b> on mx1',
      )
      expect(body).toContain(
        '<span class="val">9</span><p>Not in force. Set by <b>t.nagy</b> on mx2',
      )
    }
    const form = { key: 'setting/policy.hold', side: 'theirs', back: '/settings' }
    const kept = await ask(place, '/conflicts/keep', { session, form })
    expect([kept.status, kept.headers.get('location')]).toEqual([303, '/settings'])
    expect(place.admin.calls).toEqual(['a.ruiz: keep setting/policy.hold theirs'])
    expect(await text(place, '/conflicts', { session })).toContain('Nothing to choose')
    const gone = await ask(place, '/conflicts/keep', { session, form })
    expect(gone.status).toBe(404)
  })

  test('values that are others by now are shown again, with 409', async () => {
    const place = world()
    const session = await signIn(place)
    const form = { key: 'setting/policy.hold', side: 'former' }
    const answer = await ask(place, '/conflicts/keep', { session, form })
    const body = await answer.text()
    expect([answer.status, body.includes('The values are others by now.')]).toEqual([409, true])
    expect(body).toContain('<span class="val">9</span>')
  })

  test('who saves a form that is no longer true is told, sees the value, and may save again', async () => {
    const place = world()
    const session = await signIn(place)
    const author = { name: 't.nagy', role: 'admin' } as const
    const old = await text(place, '/settings', { session })
    const [, seen = ''] = /name="seen:policy\.hold" value="([^"]*)"/.exec(old) ?? []
    place.admin.setSetting(author, 'policy.hold', 7)
    const form = { group: 'Policy', 'policy.hold': '9', 'seen:policy.hold': seen }
    const answer = await ask(place, '/settings', { session, form })
    const body = await answer.text()
    expect([answer.status, body.includes('id="policy-hold-e"')]).toEqual([422, true])
    expect(place.admin.setting('policy.hold').value).toBe(7)
    const [, fresh = ''] = /name="seen:policy\.hold" value="([^"]*)"/.exec(body) ?? []
    const again = { ...form, 'seen:policy.hold': fresh }
    expect((await ask(place, '/settings', { session, form: again })).status).toBe(303)
    expect(place.admin.setting('policy.hold').value).toBe(9)
    const page = await text(place, '/domains/example.com', { session })
    expect(page).toContain('name="seen" value="0"')
    place.admin.putDomain(author, 'example.com', { hold: 5 })
    const domain = { hops: 'smtp://a.example:25', hold: '', reject: '', seen: '0' }
    const refused = await ask(place, '/domains/example.com', { session, form: domain })
    expect([refused.status, await refused.text()]).toEqual([
      422,
      expect.stringContaining('Set again since.'),
    ])
  })

  test('a domain says itself whether what DMARC asks for is done', async () => {
    const place = world()
    const session = await signIn(place)
    const form = { hops: 'smtp://a.example:25', hold: '', reject: '' }
    for (const [enforce, held] of [
      ['off', false],
      ['on', true],
      ['', null],
    ] as const) {
      const saved = await ask(place, '/domains/example.com', {
        session,
        form: { ...form, enforce },
      })
      expect(saved.status).toBe(303)
      expect(place.admin.domains().find(({ name }) => name === 'example.com')?.enforce).toBe(held)
      const page = await text(place, '/domains/example.com', { session })
      expect(page).toContain(`<option value="${enforce}" selected>`)
    }
  })

  test('a field of a domain stands on the page of that domain and on no other', async () => {
    const place = world()
    const session = await signIn(place)
    const hops = JSON.stringify([{ protocol: 'smtp', host: 'a.example', port: 25 }])
    const side = { by: 't.nagy', node: 'mx2', atMs: 0 }
    place.admin.conflictList = [
      {
        key: 'domain/example.com/nextHops',
        sides: [
          { ...side, id: 'a', value: hops },
          { ...side, id: 'b', value: null },
        ],
      },
      { key: 'domain/example.com.evil/hold', sides: [{ ...side, id: 'a', value: '1' }] },
    ]
    const body = await text(place, '/domains/example.com', { session })
    expect(body).toContain('“Next hops” of example.com has two values')
    expect(body).toContain('smtp://a.example:25')
    expect(body).toContain('Keep it removed')
    expect(body).not.toContain('example.com.evil')
  })
})

describe('held mail of a node that does not answer', () => {
  const mail: Mail = {
    sender: 'a@client.example',
    recipients: ['m.keller@example.com', 'info@example.com'],
    subject: 'Offer',
    findings: [{ rule: 'GTUBE', score: 9, evidence: 'the test text' }],
    state: 'held',
    text: 'secret text',
    minutesAgo: 1,
    on: 'mx3',
  }

  test('it is listed with its node; its page says who has it, and is no error', async () => {
    const place = world({ mails: [mail, { ...mail, on: 'mx1', minutesAgo: 2 }] })
    const session = await signIn(place)
    const id = HELD(place)
    const path = `/messages/${id}`
    expect(await text(place, `${path}?view=text`, { session })).toContain('secret text')
    place.admin.turn('mx3', 'dead')
    expect(await text(place, '/quarantine', { session })).toContain('mx3 does not answer</small>')
    for (const view of ['preview', 'text', 'headers', 'source']) {
      const answer = await ask(place, `${path}?view=${view}`, { session })
      const body = await answer.text()
      expect([view, answer.status]).toEqual([view, 200])
      expect(body).toContain('<b>mx3 has this mail</b> and gives no answer since ')
      expect(body).not.toContain('<iframe')
    }
    for (const part of [`${path}/frame`, `/quarantine/${id}/peek`])
      expect([part, (await ask(place, part, { session })).status]).toEqual([part, 200])
    expect((await ask(place, `${path}/source`, { session })).status).toBe(503)
    place.admin.turn('mx3', 'evicted')
    expect(await text(place, path, { session })).toContain('<b>mx3 had this mail</b>')
  })

  test('a body that is not given although its node lives is a sentence on the page', async () => {
    const place = world({ mails: [mail] })
    const session = await signIn(place)
    // Its links are up and it is on its way out: the question fails, the view does not know yet.
    place.admin.turn('mx3', 'draining')
    for (const view of ['preview', 'source']) {
      const answer = await ask(place, `/messages/${HELD(place)}?view=${view}`, { session })
      expect([view, answer.status]).toEqual([view, 200])
      expect(await answer.text()).toContain('mx3 has this mail.')
    }
  })

  test('mail in the queue of another node says so, whether that node lives or not', async () => {
    const place = world({ mails: [{ ...mail, state: 'deferred', reply: '451 later' }] })
    const session = await signIn(place)
    const path = `/messages/${WAITING(place)}`
    const alive = await text(place, path, { session })
    expect(alive).toContain('<dt>Delivered by</dt><dd>mx3</dd>')
    expect(alive).toContain('only on mx3')
    expect(alive).toContain('/retry')
    place.admin.turn('mx3', 'dead')
    const body = await text(place, path, { session })
    expect(body).toContain('<b>mx3 has it in its queue</b> and gives no answer since ')
    expect(body).not.toContain('/retry')
  })

  test('a release is noted and waits, on the page, in the list and with 202', async () => {
    const place = world({ mails: [mail, { ...mail, on: 'mx1', minutesAgo: 2 }] })
    const session = await signIn(place)
    const id = HELD(place)
    place.admin.turn('mx3', 'dead')
    const form = { recipient: 'info@example.com' }
    expect((await ask(place, `/messages/${id}/release`, { session, form })).status).toBe(303)
    const one = await text(place, `/messages/${id}`, { session })
    expect(one).toContain('Noted the release of “Offer”; it waits for mx3')
    expect(one).toContain('<b>It waits for mx3.</b> a.ruiz wants it released for info@example.com')
    expect(one).toContain('release waits for mx3</small>')
    const api = `/api/v1/quarantine/${id}/release`
    const json = { recipient: 'm.keller@example.com' }
    const noted = await ask(place, api, { session, json })
    expect(noted.status).toBe(202)
    const { node, pending } = (await noted.json()) as { node: string; pending: unknown[] }
    expect([node, pending.length]).toEqual([nodeId('mx3'), 2])
    const all = await text(place, `/messages/${id}`, { session })
    expect(all).not.toContain(`action="/messages/${id}/release"`)
    expect(await text(place, '/quarantine', { session })).toContain('Release waits for mx3')
    const ids = place.admin.kept.map((kept) => kept.id as string)
    const bulk = { act: 'delete-now', mid: ids }
    expect((await ask(place, '/quarantine/bulk', { session, form: bulk })).status).toBe(303)
    const told = await text(place, '/quarantine', { session })
    expect(told).toContain('Deleted 1 mail, 1 waits for a node')
  })
})

describe('lists and tokens', () => {
  test('a network that is refused is listed with a way to lift it; without one nothing is said', async () => {
    const place = world()
    const session = await signIn(place)
    expect(await text(place, '/lists', { session })).toContain('<b class="mono">192.0.2.66</b>')
    const form = { network: '192.0.2.66' }
    expect((await ask(place, '/lists/lift', { session, form })).status).toBe(303)
    const page = await text(place, '/lists', { session })
    expect(page).toContain('192.0.2.66 is let in again, on all nodes')
    expect(page).not.toContain('Refused for a while')
    expect((await ask(place, '/lists/lift', { session, form })).status).toBe(404)
  })

  test('an entry is added and removed; a wrong one stands at its field in its own form', async () => {
    const place = world()
    const session = await signIn(place)
    const form = { list: 'allow', kind: 'ip', value: 'mail.example', note: 'x' }
    const wrong = await ask(place, '/lists/add', { session, form })
    const body = await wrong.text()
    expect(wrong.status).toBe(422)
    expect(body).toContain('id="allow-value-e"')
    expect(body).toContain('value="mail.example"')
    expect(body).not.toContain('id="block-value-e"')
    for (const odd of [{ list: 'grey' }, { list: 'allow', kind: 'name', value: '@a.example' }]) {
      const answer = await ask(place, '/lists/add', { session, form: { ...form, ...odd } })
      expect([odd, answer.status]).toEqual([odd, 422])
    }
    const proven = { list: 'allow', kind: 'sender', value: '@good.example' }
    expect((await ask(place, '/lists/add', { session, form: proven })).status).toBe(303)
    expect(await text(place, '/lists', { session })).toContain('@good.example')
    const sender = { list: 'block', kind: 'sender', value: EVIL, note: EVIL }
    expect((await ask(place, '/lists/add', { session, form: sender })).status).toBe(303)
    const page = await text(place, '/lists', { session })
    expect(page).not.toContain('<img src=x')
    const gone = { list: 'allow', kind: 'ip', value: '192.0.2.0/24' }
    expect((await ask(place, '/lists/remove', { session, form: gone })).status).toBe(303)
    expect((await ask(place, '/lists/remove', { session, form: gone })).status).toBe(404)
  })

  test('a token is shown once; a wrong field is named', async () => {
    const place = world()
    const session = await signIn(place)
    const form = { name: 'ci', role: 'admin', days: '90' }
    const body = await text(place, '/tokens', { session, form })
    const [secret = ''] = /pat1_[0-9a-f]+/.exec(body) ?? []
    expect(place.admin.authenticateToken(secret)).toEqual({ name: 'ci', role: 'admin' })
    expect(await text(place, '/operators', { session })).not.toContain('pat1_')
    for (const [field, value] of [
      ['days', 'ever'],
      ['days', '0'],
      ['role', 'root'],
    ] as const) {
      const wrong = await ask(place, '/tokens', { session, form: { ...form, [field]: value } })
      const said = await wrong.text()
      expect([value, wrong.status]).toEqual([value, 422])
      expect(said).toContain(`id="token-${field}-e"`)
    }
  })

  test('a script with a token needs neither cookie nor csrf; a viewer changes nothing, not even a password', async () => {
    const place = world()
    const author = { name: 'a.ruiz', role: 'admin' } as const
    const token = (name: string, role: string) =>
      place.admin.addApiToken(author, { name, role }).token
    const headers = (value: string) => ({ authorization: `Bearer ${value}` })
    const admin = headers(token('ci', 'admin'))
    const set = { method: 'PUT', json: { value: 9 } }
    const path = '/api/v1/settings/policy.hold'
    expect((await ask(place, path, { headers: admin, ...set })).status).toBe(200)
    expect(place.admin.calls.at(-1)).toBe('ci: setSetting policy.hold')
    // A token may be called as an operator is.
    const viewer = headers(token('h.berg', 'viewer'))
    expect((await ask(place, '/api/v1/cluster', { headers: viewer })).status).toBe(200)
    expect((await ask(place, path, { headers: viewer, ...set })).status).toBe(403)
    const password = '/api/v1/operators/h.berg/password'
    const json = { password: NEW_PASSWORD }
    const changed = await ask(place, password, { headers: viewer, method: 'PUT', json })
    expect(changed.status).toBe(403)
    expect((await ask(place, '/metrics', { headers: viewer })).status).toBe(200)
  })

  test('a token opens no page, and a wrong one is not helped by a cookie', async () => {
    const place = world()
    const session = await signIn(place)
    const { token } = place.admin.addApiToken(
      { name: 'a.ruiz', role: 'admin' },
      { name: 'ci', role: 'admin' },
    )
    const headers = { authorization: `Bearer ${token}` }
    expect((await ask(place, '/', { headers })).status).toBe(303)
    expect((await ask(place, '/queue/retry', { headers, form: {} })).status).toBe(303)
    place.admin.removeApiToken({ name: 'a.ruiz', role: 'admin' }, 't1')
    for (const about of [{ headers }, { headers, session }]) {
      const answer = await ask(place, '/api/v1/status', about)
      expect([answer.status, await answer.json()]).toMatchObject([
        401,
        { error: { code: 'unauthenticated' } },
      ])
    }
    expect((await ask(place, '/api/v1/status', { session })).status).toBe(200)
  })
})

test('routes of the cluster refuse in the words of the node: 400, 404, 409', async () => {
  const place = world()
  const session = await signIn(place)
  const code = async (method: string, path: string, json?: unknown) => {
    const body = json === undefined ? {} : { json }
    const answer = await ask(place, `/api/v1${path}`, { session, method, ...body })
    const { error } = (await answer.json()) as { error: { code: string; field: string | null } }
    return [answer.status, error.code, error.field]
  }
  expect(await code('POST', '/invitations', { minutes: 0 })).toEqual([400, 'invalid', 'minutes'])
  expect(await code('POST', '/invitations', { minutes: 'x' })).toEqual([400, 'invalid', 'minutes'])
  expect(await code('DELETE', '/invitations/nothing')).toEqual([404, 'notFound', 'id'])
  expect(await code('POST', '/nodes/mx9/drain')).toEqual([404, 'notFound', 'node'])
  expect(await code('DELETE', '/nodes/mx9')).toEqual([404, 'notFound', 'node'])
  const keep = { key: 'setting/policy.hold', side: 'former' }
  expect(await code('POST', '/conflicts/keep', keep)).toEqual([409, 'conflict', 'side'])
  expect(await code('DELETE', '/tokens/nothing')).toEqual([404, 'notFound', 'id'])
  expect(await code('GET', '/lists/grey')).toEqual([404, 'notFound', 'list'])
  const entry = { kind: 'ip', value: 'x' }
  expect(await code('POST', '/lists/block', entry)).toEqual([400, 'invalid', 'value'])
  expect(await code('DELETE', '/lists/allow/ip/192.0.2.1')).toEqual([404, 'notFound', 'value'])
  place.admin.refuses = new RefusalError('conflict', null, '4 mails wait here.', 'Drain first.')
  expect(await code('POST', '/cluster/leave', {})).toEqual([409, 'conflict', null])
  const sender = `/lists/block/sender/${encodeURIComponent('a/b%?#@x.example')}`
  place.admin.addListEntry(
    { name: 'a.ruiz', role: 'admin' },
    { list: 'block', kind: 'sender', value: 'a/b%?#@x.example' },
  )
  const answer = await ask(place, `/api/v1${sender}`, { session, method: 'DELETE' })
  expect([answer.status, place.admin.calls.at(-1)]).toEqual([
    200,
    'a.ruiz: removeListEntry block sender a/b%?#@x.example',
  ])
})

/** The fields of the settings form as a browser would send them. */
function formOf(body: string): Record<string, string | string[]> {
  const form: Record<string, string | string[]> = {}
  const text = (raw: string) =>
    raw.replaceAll('&#x27;', "'").replaceAll('&quot;', '"').replaceAll('&amp;', '&')
  for (const [, name, value] of body.matchAll(
    /<input id="[^"]+" name="([^"]+)" value="([^"]*)" inputmode/g,
  )) {
    form[name ?? ''] = text(value ?? '')
  }
  for (const [, name, value] of body.matchAll(
    /<textarea id="[^"]+" name="([^"]+)"[^>]*>([^<]*)</g,
  )) {
    form[name ?? ''] = text(value ?? '').replaceAll('\n', '\r\n')
  }
  for (const [, name, options] of body.matchAll(
    /<select id="[^"]+" name="([^"]+)"[^>]*>(.*?)<\/select>/g,
  )) {
    form[name ?? ''] = /<option selected>([^<]+)/.exec(options ?? '')?.[1] ?? ''
  }
  form['shown'] = [...body.matchAll(/name="shown" value="([^"]+)"/g)].map(([, key]) => key ?? '')
  const checked = [...body.matchAll(/type="checkbox" name="([^"]+)" value="([^"]+)" checked/g)]
  for (const [, name = '', value = ''] of checked)
    form[name] = [...[form[name] ?? []].flat(), value]
  return form
}
