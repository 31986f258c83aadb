/** The web over an Admin without a node, and somebody who has signed in to it; driven in process. */
import { SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { SystemRandom } from '../src/base/random.ts'
import { createWeb } from '../web/server.ts'
import { FakeAdmin, type Mail, PASSWORD } from './web-fake.ts'

const CLIENT = { ip: '127.0.0.1', trusted: false }

/** What an operator of that name asks and sends, with the cookie and the token of a session. */
export async function signedIn(mails: readonly Mail[], name = 'a.ruiz') {
  const clock = new SystemClock()
  const admin = new FakeAdmin({ clock, mails })
  const web = createWeb({
    admin,
    clock,
    random: new SystemRandom(),
    observer: new Observer(clock, () => {}),
    secure: false,
    nodeName: 'mx1',
  })
  const send = (path: string, init: RequestInit = {}): Promise<Response> =>
    web.handle(new Request(`http://localhost${path}`, init), CLIENT)
  const login = await send('/api/v1/login', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name, password: PASSWORD }),
  })
  const { csrf } = (await login.json()) as { csrf: string }
  const cookie = (login.headers.get('set-cookie') ?? '').split(';')[0] ?? ''
  const ask = (path: string) => send(path, { headers: { cookie } })
  const post = (path: string, form: Readonly<Record<string, string>> = {}) =>
    send(path, {
      method: 'POST',
      headers: { cookie, 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ _csrf: csrf, ...form }).toString(),
    })
  return { admin, ask, post, send, cookie }
}
