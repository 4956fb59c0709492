"""The eight classic convolutional networks, topologies as torchvision exports them in eval mode."""

from .builder import Network
from .quantize import quantized


def _basic_block(net, x, channels, stride):
    y = net.relu(net.norm(net.conv(x, channels, 3, stride, 1)))
    y = net.norm(net.conv(y, channels, 3, 1, 1), gain=0.7)
    return _with_shortcut(net, x, y, channels, stride)


def _bottleneck(net, x, channels, stride):
    y = net.relu(net.norm(net.conv(x, channels, 1)))
    y = net.relu(net.norm(net.conv(y, channels, 3, stride, 1)))
    y = net.norm(net.conv(y, 4 * channels, 1), gain=0.7)
    return _with_shortcut(net, x, y, 4 * channels, stride)


def _with_shortcut(net, x, y, channels, stride):
    if stride != 1 or x.channels != channels:
        x = net.norm(net.conv(x, channels, 1, stride))
    return net.relu(net.add(y, x))


def _classified(net, x):
    return net.model(net.linear(net.flatten(net.global_pool(x)), 1000))


def _resnet(net, block, depths):
    x = net.relu(net.norm(net.conv(net.input, 64, 7, 2, 3)))
    x = net.max_pool(x, 3, 2, 1)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            x = block(net, x, 64 << stage, stride)
    return _classified(net, x)


def resnet18():
    return _resnet(Network("resnet18", 18, 224), _basic_block, (2, 2, 2, 2))


def resnet18_int8():
    """resnet18, quantised: QuantizeLinear and DequantizeLinear around every operator."""
    net = Network("resnet18-int8", 18, 224)
    return quantized(net, _resnet(net, _basic_block, (2, 2, 2, 2)))


def resnet34():
    return _resnet(Network("resnet34", 34, 224), _basic_block, (3, 4, 6, 3))


def resnet50():
    return _resnet(Network("resnet50", 50, 224), _bottleneck, (3, 4, 6, 3))


def mobilenetv2():
    net = Network("mobilenetv2", 2, 224)
    x = net.relu6(net.norm(net.conv(net.input, 32, 3, 2, 1)))
    stages = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expansion, channels, repeats, first_stride in stages:
        for index in range(repeats):
            stride = first_stride if index == 0 else 1
            hidden = x.channels * expansion
            y = x
            if expansion != 1:
                y = net.relu6(net.norm(net.conv(y, hidden, 1)))
            y = net.relu6(net.norm(net.conv(y, hidden, 3, stride, 1, groups=hidden)))
            y = net.norm(net.conv(y, channels, 1))
            x = net.add(x, y) if stride == 1 and x.channels == channels else y
    x = net.relu6(net.norm(net.conv(x, 1280, 1)))
    return _classified(net, x)


def squeezenet():
    net = Network("squeezenet1.1", 11, 224)

    def fire(x, squeeze, expand):
        x = net.relu(net.conv(x, squeeze, 1, bias=True))
        one = net.relu(net.conv(x, expand, 1, bias=True))
        three = net.relu(net.conv(x, expand, 3, 1, 1, bias=True))
        return net.concat(one, three)

    x = net.relu(net.conv(net.input, 64, 3, 2, bias=True))
    x = net.max_pool(x, 3, 2, ceil=True)
    x = fire(fire(x, 16, 64), 16, 64)
    x = net.max_pool(x, 3, 2, ceil=True)
    x = fire(fire(x, 32, 128), 32, 128)
    x = net.max_pool(x, 3, 2, ceil=True)
    for squeeze, expand in ((48, 192), (48, 192), (64, 256), (64, 256)):
        x = fire(x, squeeze, expand)
    x = net.relu(net.conv(x, 1000, 1, bias=True))
    return net.model(net.flatten(net.global_pool(x)))


def densenet121():
    net = Network("densenet121", 121, 224)
    growth = 32
    x = net.relu(net.norm(net.conv(net.input, 64, 7, 2, 3)))
    x = net.max_pool(x, 3, 2, 1)
    depths = (6, 12, 24, 16)
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            y = net.conv(net.relu(net.norm(x)), 4 * growth, 1)
            y = net.conv(net.relu(net.norm(y)), growth, 3, 1, 1)
            x = net.concat(x, y)
        if stage + 1 < len(depths):
            x = net.conv(net.relu(net.norm(x)), x.channels // 2, 1)
            x = net.avg_pool(x, 2, 2)
    return _classified(net, net.relu(net.norm(x)))


def _unit(net, x, channels, kernel, stride=1, pad=0):
    """torchvision's BasicConv2d of GoogLeNet and Inception v3."""
    return net.relu(net.norm(net.conv(x, channels, kernel, stride, pad), eps=1e-3))


def googlenet():
    net = Network("googlenet", 22, 224)

    def inception(x, one, three_in, three, five_in, five, pooled):
        return net.concat(
            _unit(net, x, one, 1),
            _unit(net, _unit(net, x, three_in, 1), three, 3, pad=1),
            _unit(net, _unit(net, x, five_in, 1), five, 3, pad=1),
            _unit(net, net.max_pool(x, 3, 1, 1, ceil=True), pooled, 1),
        )

    x = _unit(net, net.input, 64, 7, 2, 3)
    x = net.max_pool(x, 3, 2, ceil=True)
    x = _unit(net, _unit(net, x, 64, 1), 192, 3, pad=1)
    x = net.max_pool(x, 3, 2, ceil=True)
    x = inception(x, 64, 96, 128, 16, 32, 32)
    x = inception(x, 128, 128, 192, 32, 96, 64)
    x = net.max_pool(x, 3, 2, ceil=True)
    x = inception(x, 192, 96, 208, 16, 48, 64)
    x = inception(x, 160, 112, 224, 24, 64, 64)
    x = inception(x, 128, 128, 256, 24, 64, 64)
    x = inception(x, 112, 144, 288, 32, 64, 64)
    x = inception(x, 256, 160, 320, 32, 128, 128)
    x = net.max_pool(x, 2, 2, ceil=True)
    x = inception(x, 256, 160, 320, 32, 128, 128)
    x = inception(x, 384, 192, 384, 48, 128, 128)
    return _classified(net, x)


class _InceptionV3:
    """The five kinds of block of Inception v3, named as in torchvision."""

    def __init__(self, net):
        self.net = net

    def unit(self, *args, **keywords):
        return _unit(self.net, *args, **keywords)

    def row_column(self, x, size, channels, last):
        """1 x size, then size x 1."""
        x = self.unit(x, channels, (1, size), pad=(0, size // 2))
        return self.unit(x, last, (size, 1), pad=(size // 2, 0))

    def a(self, x, pooled):
        double = self.unit(self.unit(x, 64, 1), 96, 3, pad=1)
        return self.net.concat(
            self.unit(x, 64, 1),
            self.unit(self.unit(x, 48, 1), 64, 5, pad=2),
            self.unit(double, 96, 3, pad=1),
            self.unit(self.net.avg_pool(x, 3, 1, 1), pooled, 1),
        )

    def b(self, x):
        double = self.unit(self.unit(x, 64, 1), 96, 3, pad=1)
        return self.net.concat(
            self.unit(x, 384, 3, 2), self.unit(double, 96, 3, 2), self.net.max_pool(x, 3, 2)
        )

    def c(self, x, width):
        seven = self.row_column(self.unit(x, width, 1), 7, width, 192)
        double = self.unit(self.unit(x, width, 1), width, (7, 1), pad=(3, 0))
        double = self.unit(double, width, (1, 7), pad=(0, 3))
        double = self.unit(double, width, (7, 1), pad=(3, 0))
        double = self.unit(double, 192, (1, 7), pad=(0, 3))
        pooled = self.unit(self.net.avg_pool(x, 3, 1, 1), 192, 1)
        return self.net.concat(self.unit(x, 192, 1), seven, double, pooled)

    def d(self, x):
        three = self.unit(self.unit(x, 192, 1), 320, 3, 2)
        seven = self.row_column(self.unit(x, 192, 1), 7, 192, 192)
        return self.net.concat(three, self.unit(seven, 192, 3, 2), self.net.max_pool(x, 3, 2))

    def split(self, x):
        """A 1 x 3 and a 3 x 1 convolution side by side."""
        row = self.unit(x, 384, (1, 3), pad=(0, 1))
        return self.net.concat(row, self.unit(x, 384, (3, 1), pad=(1, 0)))

    def e(self, x):
        double = self.unit(self.unit(x, 448, 1), 384, 3, pad=1)
        return self.net.concat(
            self.unit(x, 320, 1),
            self.split(self.unit(x, 384, 1)),
            self.split(double),
            self.unit(self.net.avg_pool(x, 3, 1, 1), 192, 1),
        )


def inceptionv3():
    net = Network("inceptionv3", 3, 299)
    block = _InceptionV3(net)
    x = _unit(net, _unit(net, net.input, 32, 3, 2), 32, 3)
    x = net.max_pool(_unit(net, x, 64, 3, pad=1), 3, 2)
    x = net.max_pool(_unit(net, _unit(net, x, 80, 1), 192, 3), 3, 2)
    for pooled in (32, 64, 64):
        x = block.a(x, pooled)
    x = block.b(x)
    for width in (128, 160, 160, 192):
        x = block.c(x, width)
    x = block.e(block.e(block.d(x)))
    return _classified(net, x)
