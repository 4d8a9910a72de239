// Sends one event of every type with @rudderstack/rudder-sdk-node, unmodified: gzip JSON that it calls a form.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(join(process.env.SDK_MODULES, 'package.json'))
const RudderAnalytics = require('@rudderstack/rudder-sdk-node')

const [url, writeKey, run] = process.argv.slice(2)
const fail = (error) => {
  console.error('@rudderstack/rudder-sdk-node reports:', error)
  process.exitCode = 1
}
const client = new RudderAnalytics(writeKey, { dataPlaneUrl: url, flushAt: 3, errorHandler: fail })
const userId = `${run}-user`
const anonymousId = `${run}-device`
const id = (type) => ({ messageId: `${run}-${type}` })
client.track({ userId, event: 'Order Completed', properties: { revenue: 12.5, currency: 'EUR' }, ...id('track') })
client.page({ userId, name: 'Home', properties: { url: 'https://shop.example/' }, ...id('page') })
client.screen({ userId, name: 'Start', ...id('screen') })
client.track({ anonymousId, event: 'Product Viewed', properties: { sku: '1' }, ...id('anonymous') })
client.identify({ userId, anonymousId, traits: { email: `${run}@example.com`, name: 'Ann Ä' }, ...id('identify') })
client.group({ userId, groupId: `${run}-company`, traits: { plan: 'pro' }, ...id('group') })
client.alias({ userId, previousId: `${run}-earlier`, ...id('alias') })
await client.flush()
