/** Pages and API, driven in process: who may what, and the shapes that scripts rely on. */
import { describe, expect, test } from 'bun:test'
import { getSchemaValidator, type TSchema } from 'elysia'
import { SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { SystemRandom } from '../src/base/random.ts'
import { apiRoutes } from '../web/api-routes.ts'
import { Guard } from '../web/guard.ts'
import { html, safePath } from '../web/html.ts'
import { createWeb, PAGE_POLICY, type Web } from '../web/server.ts'
import { CODE, FakeAdmin, type Mail, PASSWORD } from './web-fake.ts'
import { ORDINARY } from './web-mails.ts'

type World = { readonly admin: FakeAdmin; readonly web: Web; readonly log: () => string }

const clock = new SystemClock()
const OUTSIDE = { ip: '203.0.113.9', trusted: false }
const SOCKET = { ip: '', trusted: true }

function world(
  options: { mails?: readonly Mail[]; setup?: boolean; ready?: boolean; secure?: boolean } = {},
): World {
  const { mails = ORDINARY, setup = false, ready = true, secure = false } = options
  const admin = new FakeAdmin({ clock, mails, setup, ready, ...(setup ? { domains: [] } : {}) })
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
  '/account',
  '/live?at=overview',
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
    for (const [path, form] of FORMS(place)) {
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
    for (const [path, form] of FORMS(place)) {
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
  return { admin: place.admin, clock, guard }
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
    const values: Readonly<Record<string, string>> = { key: 'policy.hold', name: 'example.com' }
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
